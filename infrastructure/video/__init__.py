"""The renderers of presentations: `local`, which draws and encodes in a process of this machine."""
