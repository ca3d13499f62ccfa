"""A folder with a small workflow on a SLURM, where faults are made and their outcome is checked."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from cluster import PATIENCE, Cluster
from safetensors.torch import load_file

WORKFLOW = Path(__file__).parent / "workflow"
PHASE = "results/mixture2d/phased2/seed{seed}/phase2"
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW / "Snakefile")]
SETTINGS = {"poll": 1, "signal-delay": 30, "grace": 30, "kill-wait": 20}


class Lab:
    """One workflow in one folder.

    Args:
        base: results of the tiny chain up to what the second phase needs.
    """

    def __init__(self, cluster: Cluster, folder: Path, base: Path):
        self.cluster, self.folder = cluster, folder
        shutil.copytree(base, folder / "results")
        self.environment = {
            **cluster.env,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(folder / ".cache"),
            "OMP_NUM_THREADS": "1",
        }
        self.driver: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str, config: dict[str, object] | None = None, **settings) -> None:
        """Start Snakemake; `settings` are the executor's."""
        options = {**SETTINGS, **{k.replace("_", "-"): v for k, v in settings.items()}}
        command = [*SNAKEMAKE, "--executor", "submitit", "--jobs", "10"]
        command += ["--default-resources", "mem_mb=100", "runtime=5"]
        for name, value in options.items():
            command += [f"--submitit-{name}"] + ([] if value is True else [str(value)])
        if config:
            command += ["--config", *(f"{name}={value}" for name, value in config.items())]
        self.log = self.folder / f"driver{len(list(self.folder.glob('driver*.log')))}.log"
        with self.log.open("w") as out:
            self.driver = subprocess.Popen(
                [*command, *arguments],
                cwd=self.folder,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def unlock(self) -> None:
        """Clear the lock of a killed driver."""
        command = [*SNAKEMAKE, "--unlock"]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, timeout=240)

    def end(self, timeout: float = 90) -> int:
        """Wait for the driver; returns its exit status."""
        assert self.driver is not None
        try:
            return self.driver.wait(PATIENCE * timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the driver does not end:\n{self.output()}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill the driver with -9, as a machine that goes down would."""
        if self.driver is not None and self.driver.poll() is None:
            os.killpg(self.driver.pid, signal.SIGKILL)
            self.driver.wait()

    def output(self) -> str:
        """What the driver printed."""
        return self.log.read_text()

    def steps(self) -> list[int]:
        """The updates that were made, in order."""
        path = self.folder / "steps.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(line.split()[0]) for line in lines]

    def nodes(self) -> list[str]:
        """The nodes that they were made on."""
        lines = (self.folder / "steps.txt").read_text().splitlines()
        return list(dict.fromkeys(line.split()[2] for line in lines))

    def wait_steps(self, count: int, timeout: float = 40) -> None:
        """Until that many updates have been made."""
        self.cluster.wait(
            lambda: len(self.steps()) >= count or self.driver.poll() is not None,
            timeout,
            f"{count} updates:\n{self.output()}",
        )
        assert len(self.steps()) >= count, self.output()

    def wait_output(self, text: str, timeout: float) -> None:
        """Until the driver prints that."""
        self.cluster.wait(lambda: text in self.output(), timeout, f"{text}:\n{self.output()}")

    def job(self, name: str = "train") -> str:
        """Id of the job in the queue."""
        rows = [row for row in self.cluster.queue() if row["name"].startswith(name)]
        assert len(rows) == 1, rows
        return rows[0]["id"]

    def repeated(self) -> int:
        """How many updates were made more than once."""
        return sum(count > 1 for count in Counter(self.steps()).values())

    def check(self, undisturbed: Path, repeated: int = 0) -> None:
        """All is as if nothing had happened.

        Args:
            undisturbed: a folder where the same ran without a fault; repeated: updates that may
            have been made twice, those behind the last checkpoint at a kill.
        """
        for seed in (1, 2):
            for name in ("expert", "snapshots"):
                path = f"{PHASE.format(seed=seed)}/{name}.safetensors"
                mine = load_file(self.folder / path)
                assert same(mine, load_file(undisturbed / path)), path
        assert (self.folder / "sums.txt").exists()
        assert set(self.steps()) == set(range(40))
        assert self.repeated() <= repeated, self.steps()
        self.settled()

    def settled_queue(self) -> None:
        """Nothing in the queue, and no note of a job that is out."""
        self.cluster.wait(self.cluster.empty, 20, "an empty queue")
        assert not list((self.folder / ".snakemake/submitit/running").glob("*"))

    def settled(self) -> None:
        """Nothing in the queue and nothing half-written."""
        self.settled_queue()
        everything = [path for path in (self.folder / "results").rglob("*") if path.is_file()]
        left = [path for path in everything if re.search(r"\.(new|tmp|partial)|^\.", path.name)]
        assert not left

    def submissions(self, rule: str = "train") -> int:
        """How often a rule's job was submitted."""
        return self.output().count(f"\n{rule}: Slurm job ")


def same(mine: dict, other: dict) -> bool:
    """Whether two sets of tensors are equal bit for bit."""
    return mine.keys() == other.keys() and all(mine[name].equal(other[name]) for name in mine)
