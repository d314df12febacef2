"""Files of other managers of programs, as people write them. With each file are the IDs of the tasks that an
import makes of it, and the lines of its warnings.
"""

from __future__ import annotations

SUPERVISOR = {
    "one program": ("[program:api]\ncommand=/srv/api/run --port 80\n", ["api"], []),
    "an image with several daemons": (
        """\
[supervisord]
nodaemon=true
user=root
logfile=/dev/null

[program:sshd]
command=/usr/sbin/sshd -D
autorestart=true
priority=20
stdout_logfile=/var/log/sshd.out
stderr_logfile=/var/log/sshd.err

[program:db]
command=/usr/sbin/databased --user=db
autorestart=true
priority=10

[program:cron]
command=/usr/sbin/cron -f
""",
        ["db", "sshd", "cron"],
        [4, 10, 11],
    ),
    "output to the container's log": (
        """\
[supervisord]
nodaemon=true

[program:display]
command=/usr/bin/Xserver :0 -screen 0 800x600x24
autorestart=true
stdout_logfile=/dev/fd/1
stdout_logfile_maxbytes=0
redirect_stderr=true

[program:viewer]
command=/opt/viewer /data/My\\ Files\\ (old)/a.bin
stdout_logfile=/dev/stdout
stdout_logfile_maxbytes=0
""",
        ["display", "viewer"],
        [],
    ),
    "workers by number": (
        """\
[group:jobs]
programs=import,export

[program:import]
command=python3 jobs.py --name=import --port=91%(process_num)02d
process_name=%(program_name)s_%(process_num)02d
numprocs=3
numprocs_start=1
directory=%(here)s
autostart = true
loglevel=info

[program:export]
command=python3 jobs.py --group=%(group_name)s
""",
        ["import_01", "import_02", "import_03", "export"],
        [1, 11],
    ),
    "a worker that ends slowly": (
        """\
; ======================
;  the worker
; ======================
[program:worker]
  command=/opt/queue/bin/worker -n a@%%h -Q high,low
  directory=/opt/queue

  user=nobody
  numprocs=1
  autostart=true
  startsecs=10
  startretries=3

  ; the last job has to end
  stopwaitsecs = 600
  stopasgroup=true
""",
        ["worker"],
        [11],
    ),
    "variables": (
        """\
[supervisord]
environment=STAGE="test"

[program:site]
command=/srv/site/serve
environment=MODE='a, b',PATH="/opt/bin:/bin",LANG=C.UTF-8,IMPORTED_TOKEN=%(ENV_IMPORTED_TOKEN)s
""",
        ["site"],
        [],
    ),
    "a command on several lines": (
        """\
[program:browser]
command=/usr/bin/browser
  --display=%(ENV_NO_SUCH_VARIABLE)s
  --first-run=no
user=%(ENV_NO_SUCH_VARIABLE)s
""",
        ["browser"],
        [2, 5],
    ),
    "signals and statuses": (
        """\
[program:server]
command=/usr/sbin/server -g "daemon off;"
autorestart=unexpected
exitcodes=0,2
stopsignal=QUIT
killasgroup=true
umask=027
[program:once]
command=/bin/sh -c 'echo hello > /tmp/x'
autorestart=false
autostart=false
""",
        ["server", "once"],
        [],
    ),
    "the sections of a full file": (
        """\
[unix_http_server]
file=/run/supervisor.sock
chmod=0700

[inet_http_server]
port=127.0.0.1:9001

[supervisord]
pidfile=/run/supervisord.pid
childlogdir=/var/log/supervisor
minfds=512

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix:///run/supervisor.sock

[program:api]
command=/srv/api/run ; the API

[eventlistener:mail]
command=mailer
events=PROCESS_STATE

[fcgi-program:php]
command=php
socket=tcp://127.0.0.1:9000
""",
        ["api"],
        [3, 5, 10, 22, 26],
    ),
    "included files": (
        "[include]\nfiles = conf.d/*.conf nothing/*.conf\n[program:main]\ncommand=/bin/main\n",
        ["main", "added"],
        [2],
    ),
}

PROCFILES = {
    "a web server": ("web: gunicorn site.wsgi:application --bind 0.0.0.0:$PORT --log-file -\n", ["web"], []),
    "a worker": ("worker: python bot.py", ["worker"], []),
    "server and jobs": (
        "web: bundle exec server -p $PORT -c ./c.rb\njobs: bundle exec jobs -C ./j.yml",
        ["web", "jobs"],
        [],
    ),
    "a release": ("release: bash deploy/release.sh\nweb: bash deploy/start.sh\n", ["release", "web"], [1]),
    "comments": (
        "# processes\n\n## the site\nweb: bin/serve -p ${PORT:-5000}\n# jobs: bin/jobs\n",
        ["web"],
        [],
    ),
    "directories": (
        "web: cd backend && serve app:app\nbeat: cd backend && tick -A app beat\n",
        ["web", "beat"],
        [],
    ),
    "variables before the program": ("js: NODE_ENV=development yarn build --watch\n", ["js"], []),
    "several commands": ('web: rm -f tmp/server.pid; LOG=1 bin/serve -b "0.0.0.0"\n', ["web"], []),
    "Python in quotes": (
        'init: python -c "import app; app.make()"\napi: gunicorn "app:make"\n',
        ["init", "api"],
        [],
    ),
    "names": ("celery-beat: beat -S django\nworker_2: work -Q a,b\n", ["celery-beat", "worker_2"], []),
}

CIRCUS = {
    "two watchers": (
        "# demo\n[watcher:ui]\ncmd = make serve-ui\nnumprocesses = 1\n\n[watcher:static]\ncmd = make serve-static\n",
        ["ui", "static"],
        [],
    ),
    "a site with a socket": (
        """\
[circus]
check_delay = 5
endpoint = tcp://127.0.0.1:5555
loglevel = ERROR

[watcher:site]
cmd = $(circus.env.HERE)/bin/serve --fd $(circus.sockets.site) --name site-$(circus.wid)
use_sockets = True
numprocesses = 2
copy_env = True
virtualenv = $(circus.env.HERE)
working_dir = $(circus.env.HERE)
stderr_stream.class = FileStream
stderr_stream.filename = /var/log/site.err
stdout_stream.class = StdoutStream

[socket:site]
host = 0.0.0.0
port = 8023

[env:si*]
HERE = /srv/site
""",
        ["site@1", "site@2"],
        [4, 11, 13, 14],
    ),
    "variables for all": (
        """\
[env]
python=python3
host = db.example.org

[watcher:in]
cmd = $(circus.env.python)
args = in.py -t ((circus.env.host)) -w $WID

[watcher:out]
cmd = $(circus.env.python)
args = out.py
max_retry = -1
respawn = False
""",
        ["in", "out"],
        [],
    ),
    "misspelled options": (
        "[watcher:api]\ncmd = serve -p 8001 api:app\nworkding_dir = /srv/api\nuser = www-data\n",
        ["api"],
        [3, 4],
    ),
    "limits and a shell": (
        """\
[watcher:office]
cmd = office --accept=socket,port=2002;urp;
shell = True
uid = daemon
rlimit_nofile = 500
rlimit_core =
stop_signal = INT
graceful_timeout = 5
autostart = False
priority = 2

[plugin:stats]
use = circus.plugins.statsd.StatsdEmitter
""",
        ["office"],
        [12],
    ),
}
