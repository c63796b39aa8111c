import httpx2


def test_it_lives(api: str) -> None:
    assert httpx2.get(f"{api}/livez").json() == {"status": "live"}
