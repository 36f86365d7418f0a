"""Accounts in a folder, behind one simulated cloud, for the tests of fleets."""

from __future__ import annotations

from pathlib import Path

from ecoflow_push.simulator.accounts import Keys, SimulatedAccount, SimulatedDevice
from ecoflow_push.simulator.cloud import SimulatedCloud
from tests.receiver import Receiver, Sample


class Fleet:
    """A cloud's accounts, each with a file in `folder`."""

    def __init__(self, cloud: SimulatedCloud, folder: Path, environ: dict[str, str]):
        self.cloud = cloud
        self.folder = folder
        self.accounts: dict[str, SimulatedAccount] = {}
        own = ("ECOFLOW_", "PUSHGATEWAY_")
        kept = {k: v for k, v in environ.items() if not k.startswith(own)}
        self.environ = {**kept, "ECOFLOW_ACCOUNTS": str(folder)}
        folder.mkdir()

    def add(self, *names: str, devices: int = 1) -> None:
        """Let an account be there for each name, with that many devices."""
        for name in names:
            number = len(self.accounts)
            serials = [f"R331{number:06}{n:06}" for n in range(devices)]
            quotas = {"pd.soc": number, "pd.wattsInSum": 1}
            account = SimulatedAccount(
                [SimulatedDevice(sn, quotas) for sn in serials],
                Keys(f"AK{number:030}", f"SK{number:030}"),
            )
            self.cloud.add(account)
            self.accounts[name] = account
            self.write(name, self.said(name))

    def said(self, name: str) -> dict[str, str]:
        """Return what an account's file says."""
        keys = self.accounts[name].keys
        assert keys
        return keys.environ(self.cloud.url)

    def write(self, name: str, said: dict[str, str]) -> Path:
        """Write an account's file."""
        path = self.folder / f"{name}.env"
        path.write_text("".join(f"{k}={v}\n" for k, v in said.items()))
        path.chmod(0o600)
        return path

    def state(self, name: str) -> Path:
        """Return the state folder of an account."""
        from ecoflow_push.memory.lock import state_folder

        said = self.said(name)
        identity = said["ECOFLOW_API_HOST"], said["ECOFLOW_ACCESS_KEY"]
        job = self.environ.get("PUSH_JOB", "ecoflow")
        return Path(state_folder(self.environ["STATE_DIR"], *identity, job))

    def states(self, name: str) -> list[Path]:
        """Return all files of a name in the state folders."""
        return sorted(Path(self.environ["STATE_DIR"]).glob(f"*/{name}"))


def samples_of(receiver: Receiver) -> list[Sample]:
    """Return all samples that were taken."""
    taken = [each for each in receiver.requests if each.status == 204]
    return [sample for request in taken for sample in request.samples]


def totals_of(receiver: Receiver) -> list[float]:
    """Return what was told of samples that waited too long, run by run."""
    return [
        sample.value
        for sample in samples_of(receiver)
        if sample.name == "ecoflow_push_dropped_samples_total"
        and sample.label("reason") == "age"
    ]
