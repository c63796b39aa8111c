"""Who is told what within a process."""

import asyncio

from application.news import ANY, JOBS, LOG, SOON, job_topic, queue_topic
from domain.ids import job_ids
from infrastructure.news import LocalNews
from tests.application.memory import NOW

(JOB,) = map(job_topic, job_ids(1, NOW))
QUEUE = queue_topic("default")
TOPICS = (JOB, QUEUE, SOON, LOG)


async def _told(*topics: str) -> set[str]:
    """Which of the topics has an ear that heard something."""
    news = LocalNews()
    heard: set[str] = set()
    for topic in TOPICS:
        with news.listen([topic]) as ear:
            news.tell(topics)
            await asyncio.sleep(0)  # what was told is there before it is waited for, however long that takes
            if await ear.heard(0.01):
                heard.add(topic)
    return heard


def test_each_hears_what_it_listens_to_and_the_log_grew_whatever_it_is() -> None:
    for topic in TOPICS:
        assert asyncio.run(_told(topic)) == {topic, LOG}


def test_when_jobs_are_too_many_to_name_all_who_follow_one_are_told_and_nobody_who_waits_for_work() -> None:
    assert asyncio.run(_told(JOBS)) == {JOB, LOG}


def test_when_anything_may_have_happened_everybody_is_told() -> None:
    assert asyncio.run(_told(ANY)) == set(TOPICS)
