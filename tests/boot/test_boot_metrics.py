"""The units that collect metrics: a file for node_exporter, and HTTP by socket activation."""

from __future__ import annotations

from installed import Installed

DIRECTORY = "/var/lib/prometheus/node-exporter"
FETCH = """
import sys, urllib.error, urllib.request
try:
    print(urllib.request.urlopen("http://localhost:9649/metrics", timeout=20).read().decode())
except (OSError, urllib.error.HTTPError) as error:
    print("refused", error)
"""


def test_the_units_write_and_serve_the_metrics_of_running_contexts(echo: Installed) -> None:
    machine = echo.machine
    echo.start()
    machine.put("/tmp/fetch.py", FETCH)
    machine.sh(f"mkdir -p {DIRECTORY}; systemctl start zmsvc-metrics.service")
    written = machine.sh(f"setpriv --reuid 65534 --clear-groups cat {DIRECTORY}/zmsvc.prom").stdout
    assert 'zmsvc_up{context="EchoAction"} 1\n' in written
    assert "zmsvc_task_resident_memory_bytes{" in written
    try:
        machine.sh("systemctl start zmsvc-exporter.socket zmsvc-metrics.timer")
        assert 'zmsvc_up{context="EchoAction"} 1\n' in machine.sh("/usr/bin/python3 /tmp/fetch.py").stdout
        other = machine.sh("setpriv --reuid 65534 --clear-groups /usr/bin/python3 /tmp/fetch.py").stdout
        assert other.startswith("refused")
        assert machine.sh("systemctl show -p User --value zmsvc-exporter.service").stdout.strip() != "root"
    finally:
        machine.sh("systemctl stop zmsvc-exporter.socket zmsvc-exporter.service zmsvc-metrics.timer")
    echo.stop()
