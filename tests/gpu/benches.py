"""Benches for the day that a GPU is there: updates of released architectures, random weights.

python tests/gpu/benches.py                      # the commands for an H100 or H200
python tests/gpu/benches.py wan2.1-t2v-1.3b      # one of them
"""

import json
import subprocess
import sys

CLIP = ["--size", "81x480x832"]
MODELS = {  # name -> a method's phase at a size that fits 80 GB by its plan
    "wan2.1-t2v-1.3b": ["wan21t2v", *CLIP, "--configfile", "config/wan21small.yaml"],
    "wan2.2-a14b-expert": ["wan22t2v", *CLIP],
    "qwen-image": ["qwenimage"],
    "tiny": ["wan21t2v", "--tiny"],
}
# What an H200 has room for beside them.
LARGER = {
    "wan2.2-a14b-both": ["wan22t2v", "--phase", "2", *CLIP],
    "wan2.2-a14b-720p": ["wan22t2v", "--size", "81x720x1280"],
    "wan2.1-t2v-1.3b-full-fake": [
        *("wan21t2v", *CLIP),
        *("--configfile", "config/wan21small.yaml", "config/fullfake.yaml"),
    ],
}


def command(name, device="cuda", *more):
    """The arguments of Python for one of the benches."""
    chosen = {**MODELS, **LARGER}[name]
    return ["-m", "pdmd", "bench", "--random-init", "--device", device, *more, *chosen]


def measure(name, device="cuda", *more):
    """What a bench says, run in a process of its own: the peak is of it alone."""
    done = subprocess.run(
        [sys.executable, *command(name, device, *more)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        for each in (*MODELS, *LARGER):
            print(" ".join(["python", *command(each)]))
