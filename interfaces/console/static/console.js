// What every page begins with: it looks at what is there, and starts what belongs to it.
import { begin } from "./parts.js";
import { followJob } from "./follow.js";
import { travel } from "./travel.js";
import { calls } from "./calls.js";
import { bulk } from "./bulk.js";
import { makeNew } from "./new.js";
import { tail } from "./tail.js";
import { verify } from "./verify.js";

for (const start of [begin, followJob, travel, calls, bulk, makeNew, tail, verify]) start();
