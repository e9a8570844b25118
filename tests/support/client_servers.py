"""The real servers of tests/clients: each starts on free ports when it is first asked for, can be ended and started again at
the same place, and tells the clients by environment variables where it is."""

import atexit
import getpass
import glob
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys

import checks
from checks import Skip, expect_equal, free_port, needs, port_answers

scratch = checks.temporary_directory()
os.chmod(scratch, 0o755)
PATH = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS_AT_ONCE = 100


def written(name, text):
    path = os.path.join(scratch, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def program(name):
    found = shutil.which(name, path=PATH)
    if not found:
        raise Skip(f"{name} is not installed")
    return found


def done(command, what, **options):
    made = checks.run(command, **options)
    expect_equal(made.status, 0, f"{what} ({made.err[-300:]!r})")


def as_user(name, command):
    """For servers that refuse to be root."""
    return command if os.geteuid() else ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups", *command]


def own_folder(name, user):
    path = os.path.join(scratch, name)
    os.makedirs(path, mode=0o700)
    if os.geteuid() == 0:
        shutil.chown(path, user, user)
    return path


def tree_of(pid):
    """A process and all that descend from it."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as f:
            children = [int(p) for p in f.read().split()]
    except OSError:
        children = []
    return [pid] + [p for child in children for p in tree_of(child)]


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def stopped_tree_of(pid):
    """The same, and none of them makes another: each is stopped before it is asked whom it has made."""
    stopped = []
    while fresh := [p for p in tree_of(pid) if p not in stopped]:
        for p in fresh:
            send(p, signal.SIGSTOP)
        stopped += fresh
    return stopped


class Server:
    """One kind of server; made and started by get()."""

    ends_by = signal.SIGTERM
    _made = {}

    @classmethod
    def get(cls):
        if cls not in cls._made:
            try:
                cls._made[cls] = cls()
                cls._made[cls].prepare()
                cls._made[cls].start()
            except Exception as why:  # asked again, it says the same
                cls._made[cls] = why
        if isinstance(cls._made[cls], Exception):
            raise cls._made[cls]
        return cls._made[cls]

    def __init__(self):
        self.port = free_port()
        self.processes = []

    def start(self):
        self.processes = []
        for command in self.commands():
            self.processes.append(checks.serve(command, ready=self.ready, seconds=60))

    def ready(self):
        return port_answers(self.port)

    def stop(self):
        for process in reversed(self.processes):
            descendants = stopped_tree_of(process.pid)[1:] if self.ends_by == signal.SIGKILL else []
            process.send_signal(self.ends_by)
            process.wait(30)
            for pid in descendants:
                send(pid, signal.SIGKILL)


class Nginx(Server):
    def prepare(self):
        self.tls_port = free_port()
        self.certificate = os.path.join(scratch, "certificate.pem")
        self.folder = own_folder("nginx", "nobody") if os.geteuid() else os.path.join(scratch, "nginx")
        os.makedirs(self.folder, exist_ok=True)
        modules = glob.glob("/usr/lib*/nginx/modules/ngx_http_echo_module.so")
        if not modules:
            raise Skip("nginx's echo module is not installed")
        needs("openssl")
        done(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
              "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
              "-keyout", self.certificate + ".key", "-out", self.certificate], "openssl")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"{kind}_temp_path {self.folder}/{kind}; " for kind in kinds)
        self.settings = written("nginx.conf", f"""daemon off; master_process off; pid {self.folder}/pid;
load_module {modules[0]};
events {{ worker_connections 4000; }}
http {{
  access_log off; {temporary}
  ssl_certificate {self.certificate}; ssl_certificate_key {self.certificate}.key;
  server {{
    listen 127.0.0.1:{self.port} backlog=1000; listen 127.0.0.1:{self.tls_port} ssl http2 backlog=1000;
    location = /wait {{ echo_sleep $arg_s; echo_duplicate 2000 "answer $arg_id;"; }}
  }}
}}
""")

    def commands(self):
        return [[program("nginx"), "-e", f"{self.folder}/errors", "-p", self.folder, "-c", self.settings]]

    def variables(self):
        return {"CLIENTS_HTTP": self.port, "CLIENTS_HTTPS": self.tls_port, "CLIENTS_CERTIFICATE": self.certificate}


class PostgreSQL(Server):
    ends_by = signal.SIGINT  # "fast": says goodbye to its clients

    def prepare(self):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
        if not found:
            raise Skip("postgresql is not installed")
        self.programs = os.path.dirname(found[-1])
        self.data = own_folder("postgresql", "postgres")
        command = [f"{self.programs}/initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8"]
        done(as_user("postgres", [*command, "--no-sync"]), "initdb", cwd="/")

    def commands(self):
        return [as_user("postgres", [f"{self.programs}/postgres", "-D", self.data, "-h", "127.0.0.1", "-p", str(self.port),
                                     "-k", "", "-F", "-c", f"max_connections={CLIENTS_AT_ONCE + 20}"])]

    def ready(self):
        return subprocess.run([f"{self.programs}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]).returncode == 0

    def variables(self):
        return {"CLIENTS_POSTGRESQL": self.port}


class MariaDB(Server):
    ends_by = signal.SIGKILL  # told to end, it takes seconds; killed, it comes back as quickly

    def prepare(self):
        program("mariadbd")
        self.data = own_folder("mariadb", "mysql")
        self.options = ["--no-defaults", *([] if os.geteuid() else ["--user=mysql"]), f"--datadir={self.data}",
                        "--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M"]
        made = [program("mariadb-install-db"), *self.options, "--auth-root-authentication-method=normal", "--skip-test-db"]
        done(made, "mariadb-install-db", seconds=100)

    def commands(self):
        return [[program("mariadbd"), *self.options, f"--port={self.port}", "--bind-address=127.0.0.1", "--back-log=200",
                 f"--socket={self.data}/socket", f"--pid-file={self.data}/pid", f"--max-connections={CLIENTS_AT_ONCE + 20}"]]

    def variables(self):
        return {"CLIENTS_MARIADB": self.port}


class Redis(Server):
    def prepare(self):
        needs("redis-server")

    def commands(self):
        return [["redis-server", "--hz", "500",  # or it looks for timeouts ten times a second only
                 "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", scratch]]

    def variables(self):
        return {"CLIENTS_REDIS": self.port}


class Ssh(Server):
    ends_by = signal.SIGKILL  # and its sessions with it

    def prepare(self):
        sshd = program("sshd")
        needs("ssh-keygen")
        self.key = os.path.join(scratch, "ssh-key")
        for path in (self.key, self.key + "-host"):
            done(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], "ssh-keygen")
        if os.geteuid() == 0:
            if not os.path.exists("/run/sshd"):  # it must be there, and only Debian's service makes it
                os.mkdir("/run/sshd", mode=0o755)
                atexit.register(os.rmdir, "/run/sshd")
        text = f"""ListenAddress 127.0.0.1
Port {self.port}
HostKey {self.key}-host
AuthorizedKeysFile {self.key}.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
MaxStartups 1000
SetEnv SHLVL=2
"""  # so that bash does not take the user's own .bashrc, which may do anything
        self.settings = written("sshd.conf", text + "PerSourcePenalties no\n")
        if checks.run([sshd, "-t", "-f", self.settings]).status != 0:  # older ones do not know it
            self.settings = written("sshd.conf", text)
        tried = checks.run([sshd, "-t", "-f", self.settings])
        if tried.status != 0:
            raise Skip(f"sshd does not run here: {tried.err.decode(errors='replace').strip()[-200:]}")

    def commands(self):
        return [[program("sshd"), "-D", "-e", "-f", self.settings]]

    def variables(self):
        return {"CLIENTS_SSH": self.port, "CLIENTS_SSH_KEY": self.key, "CLIENTS_SSH_USER": getpass.getuser()}


class Slow(Server):
    """One of slow_servers.py."""

    def slow(self, kind, what):
        return [sys.executable, os.path.join(HERE, "slow_servers.py"), kind, str(self.port), str(what)]


class Memcached(Slow):
    ends_by = signal.SIGKILL

    def prepare(self):
        needs("memcached")
        self.behind = free_port()

    def commands(self):
        user = [] if os.geteuid() else ["-u", "nobody"]
        command = ["memcached", *user, "-l", "127.0.0.1", "-p", str(self.behind), "-U", "0", "-c", "2000"]
        return [command, self.slow("memcached", self.behind)]

    def ready(self):
        return port_answers(self.behind if not self.processes else self.port)

    def variables(self):
        return {"CLIENTS_MEMCACHED": self.port}


class Lock(Slow):
    ends_by = signal.SIGKILL

    def prepare(self):
        self.file = os.path.join(scratch, "database")
        database = sqlite3.connect(self.file)
        database.execute("create table words (word text)")
        database.execute("insert into words values ('answer')")
        database.execute("create table filler (bytes blob)")
        database.executemany("insert into filler values (zeroblob(?))", [(4000,)] * 50)
        database.commit()
        database.close()

    def commands(self):
        return [self.slow("lock", self.file)]

    def variables(self):
        return {"CLIENTS_LOCK": self.port, "CLIENTS_DATABASE": self.file}
