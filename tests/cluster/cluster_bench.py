"""Three booted hosts with systemd on one machine, in namespaces: with a network cable each, a network switch, a
power switch for fencing, and a cluster of Pacemaker on them. It needs root. Nothing of it has a name on the
machine: when the process that made it is killed, everything is gone but empty control groups.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from machine import cgroup_base, held, ready, remove_groups

HERE = Path(__file__).parent
BOOT = HERE.parent / "boot/boot.sh"
ENVIRONMENT = {
    "TERM": "dumb",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}

COROSYNC = """totem {{
    version: 2
    cluster_name: zm
    transport: knet
    crypto_cipher: aes256
    crypto_hash: sha256
    token: 1000
}}
nodelist {{
{nodes}}}
quorum {{
    provider: corosync_votequorum
}}
logging {{
    to_syslog: yes
}}
"""
NODE = "    node {{\n        name: h{0}\n        nodeid: {0}\n        ring0_addr: 10.77.0.{0}\n    }}\n"

CIB = """<cib crm_feature_set="3.1.0" validate-with="pacemaker-3.0" epoch="1" num_updates="0" admin_epoch="0">
<configuration>
<crm_config><cluster_property_set id="cib-bootstrap-options">
<nvpair id="o1" name="dc-deadtime" value="2s"/><nvpair id="o2" name="stonith-enabled" value="true"/>
<nvpair id="o3" name="stonith-action" value="off"/>
</cluster_property_set></crm_config>
<nodes/>
<resources><primitive id="fence" class="stonith" type="fence_bench"><instance_attributes id="fence-i">
<nvpair id="fence-h" name="pcmk_host_list" value="h1 h2 h3"/></instance_attributes></primitive></resources>
<constraints/>
<rsc_defaults><meta_attributes id="d"><nvpair id="d1" name="resource-stickiness" value="100"/></meta_attributes></rsc_defaults>
</configuration><status/></cib>
"""
"""The first configuration. It claims an old set of features, because a member that finds a newer set than its
own leaves at once. Without `dc-deadtime` a new cluster waits 20 s for other members.
"""


class BenchError(Exception):
    """A host or the cluster does not do what was expected of it."""


def wait_until(what: str, fact: Callable[[], object], seconds: float = 60.0) -> float:
    """Wait until `fact` is true. Return the seconds that it took."""
    began = time.monotonic()
    while not fact():
        if time.monotonic() - began > seconds:
            raise BenchError(f"not seen within {seconds:.0f} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - began


class Bench:
    """The switches and the hosts. `layers` are the tar files of the hosts' files, the lowest one first."""

    def __init__(self, layers: Sequence[Path], numbers: Sequence[int] = (1, 2, 3)) -> None:
        self.numbers = tuple(numbers)
        self.switch_works = True
        """False if the power switch cuts no power, and says so."""
        self._pids: dict[int, int] = {}
        for old in cgroup_base().glob("zmcluster-*"):  # a killed run leaves only empty directories
            with contextlib.suppress(OSError):
                os.close(held(old))
                remove_groups(old)
        self._groups = cgroup_base() / f"zmcluster-{os.getpid()}-{time.monotonic_ns()}"
        self._groups.mkdir()
        self._lock = held(self._groups)
        self.directory = Path(tempfile.mkdtemp(prefix="zmcluster."))
        self.work = self.directory / "work"
        self.work.mkdir()
        try:
            self._start(layers)
        except BaseException:
            self.close()
            raise

    def _start(self, layers: Sequence[Path]) -> None:
        namespaces = (
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
        )
        hosts = " ".join(map(str, self.numbers))
        # setpriv: when this process ends, so does the bench.
        self._process = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "KILL",
                "unshare",
                *namespaces,
                "sh",
                HERE / "switch.sh",
                self.work,
                hosts,
                *layers,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if (
            not select.select([self._process.stdout], [], [], 60)[0]
            or self._process.stdout.readline() != b"ready\n"
        ):
            raise BenchError("the bench does not start")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self.pid = int(children.read_text().split()[0])
        self.share = Path(f"/proc/{self.pid}/root{self.work}/share")
        self._power = socket.socket(socket.AF_UNIX)
        self._power.bind(str(self.share / "power"))
        self._power.listen()
        threading.Thread(target=self._serve_power, daemon=True).start()

    def close(self) -> None:
        """Kill everything. The mounts and the network end with the namespaces."""
        if hasattr(self, "_process"):
            self._process.kill()
            self._process.wait(30)
            if self._process.stdout is not None:
                self._process.stdout.close()
        if self._groups.exists():
            (self._groups / "cgroup.kill").write_text("1")
            remove_groups(self._groups)
        os.close(self._lock)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- power

    def _serve_power(self) -> None:
        """Answer the fence agents: `off` when the host is off for certain, otherwise `failed`."""
        with contextlib.suppress(OSError):
            while True:
                asking, _ = self._power.accept()
                with asking, contextlib.suppress(OSError, ValueError, IndexError):
                    number = int(asking.recv(64).decode().strip()[1:])
                    if self.switch_works:
                        self.power_off(number)
                    asking.sendall(b"off" if self.switch_works else b"failed")

    def power_off(self, number: int) -> None:
        """Kill a host, and return when none of its processes is left: the kernel ends a PID namespace before its
        first process.
        """
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self._pids[number])
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [], 20)
            finally:
                os.close(descriptor)

    def is_on(self, number: int) -> bool:
        return Path(f"/proc/{self._pids[number]}/ns/pid").exists()

    def power_on(self, *numbers: int) -> None:
        """Boot hosts from their disks, and wait until they have booted."""
        booting = [(number, *self._boot(number)) for number in numbers]
        for number, process, notified in booting:
            with notified:
                pid = ready(notified, process, 120)
            if not pid:
                raise BenchError(
                    f"h{number} does not boot:\n{self._log(number).read_text(errors='replace')[-2000:]}"
                )
            self._pids[number] = pid
            self._leave_group(number)

    def _log(self, number: int) -> Path:
        return self.directory / f"h{number}.log"

    def _boot(self, number: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
        group = self._groups / f"h{number}"
        if group.exists():
            (group / "cgroup.kill").write_text("1")
            remove_groups(group)
        group.mkdir(exist_ok=True)
        address = self.directory / f"h{number}.booted"
        address.unlink(missing_ok=True)
        notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notified.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        notified.bind(str(address))
        enter = f'echo 0 > "{group}/cgroup.procs"; exec nsenter -t {self.pid} -m -n -p sh "$@"'
        with self._log(number).open("ab") as log:
            process = subprocess.Popen(
                ["sh", "-c", enter, "sh", HERE / "host.sh", self.work, str(number), BOOT],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"NOTIFY_SOCKET": str(address)},
            )
        return process, notified

    def _leave_group(self, number: int) -> None:
        """Move the processes that wait for a host out of its group: the root group of a machine must be empty, or
        no controller can be enabled there.
        """
        group = self._groups / f"h{number}"
        own = os.readlink(f"/proc/{self._pids[number]}/ns/pid")
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/pid") != own:
                    (self._groups / "cgroup.procs").write_text(pid)
        (group / "commands").mkdir()

    # --- network

    def cut(self, number: int) -> None:
        self._inside("ip", "link", "set", f"p{number}", "down")

    def mend(self, number: int) -> None:
        self._inside("ip", "link", "set", f"p{number}", "up")

    def _inside(self, *argv: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.pid), "-m", "-n", *argv], check=True, timeout=30)

    # --- hosts

    def on(
        self, number: int, *argv: str, check: bool = True, seconds: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, in its control group, so that it ends with the host."""
        enter = (
            f'echo 0 > "{self._groups}/h{number}/commands/cgroup.procs"; '
            f'exec nsenter -t {self._pids[number]} -m -u -i -n -p -C -r -w "$@"'
        )
        environment = ["env", "-i", *(f"{name}={value}" for name, value in ENVIRONMENT.items())]
        done = subprocess.run(
            ["sh", "-c", enter, "sh", *environment, *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        if check and done.returncode:
            raise BenchError(
                f"{' '.join(argv)} on h{number} ended with {done.returncode}: {(done.stderr or done.stdout)[-1500:]}"
            )
        return done

    def sh(self, number: int, command: str, *, check: bool = True) -> str:
        """Return the output of a shell command on a host."""
        return self.on(number, "sh", "-c", command, check=check).stdout

    def put(self, number: int, path: str, text: str, mode: int = 0o644) -> None:
        file = Path(f"/proc/{self._pids[number]}/root") / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    # --- the cluster

    def let_in(self) -> None:
        """Let root of each host in on each other by ssh, without a question."""
        # All hosts have the keys of the image.
        self.sh(1, "ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
        key = self.sh(1, "cat /root/.ssh/id_ed25519")
        public = self.sh(1, "cat /root/.ssh/id_ed25519.pub")
        known = f"{','.join(f'h{each}' for each in self.numbers)} {self.sh(1, 'cat /etc/ssh/ssh_host_ed25519_key.pub')}"
        for number in self.numbers:
            self.put(number, "/root/.ssh/id_ed25519", key, 0o600)
            self.put(number, "/root/.ssh/authorized_keys", public, 0o600)
            self.put(number, "/etc/ssh/ssh_known_hosts", known)
        self.start_sshd()

    def start_sshd(self) -> None:
        """Start sshd on each host. After a power cut a host boots without it."""
        for number in self.numbers:
            self.on(number, "systemctl", "start", "ssh")

    def form_cluster(self) -> float:
        """Configure and start the cluster as an administrator does once. Return the seconds until it is there."""
        keys = {"corosync": os.urandom(256), "pacemaker": os.urandom(256)}
        nodes = "".join(map(NODE.format, self.numbers))
        for number in self.numbers:
            root = Path(f"/proc/{self._pids[number]}/root")
            for name, key in keys.items():
                (root / f"etc/{name}").mkdir(exist_ok=True)
                (root / f"etc/{name}/authkey").write_bytes(key)
                (root / f"etc/{name}/authkey").chmod(0o400 if name == "corosync" else 0o444)
            self.put(number, "/etc/corosync/corosync.conf", COROSYNC.format(nodes=nodes))
            self.put(number, "/usr/sbin/fence_bench", (HERE / "fence_bench").read_text(), 0o755)
            directory = root / "var/lib/pacemaker/cib"
            for old in directory.glob("*"):
                old.unlink()
            self.put(number, "/var/lib/pacemaker/cib/cib.xml", CIB, 0o600)
            os.chown(directory / "cib.xml", directory.stat().st_uid, directory.stat().st_gid)
        for number in self.numbers:
            self.on(number, "systemctl", "start", "--no-block", "pacemaker")
        return self.wait_for_members()

    def wait_for_members(self) -> float:
        wanted = f"Online: [ {' '.join(f'h{each}' for each in self.numbers)} ]"
        return wait_until("all members online", lambda: wanted in self.status(), 120)

    def status(self) -> str:
        """Return what the first host that is on says about the cluster."""
        number = next(each for each in self.numbers if self.is_on(each))
        return self.sh(number, "crm_mon -1", check=False)

    def rejoin(self, number: int) -> None:
        """Boot a host that is off, and wait until the cluster has it again."""
        self.power_on(number)
        self.on(number, "systemctl", "start", "--no-block", "pacemaker")
        self.wait_for_members()
