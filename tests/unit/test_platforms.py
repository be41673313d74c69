"""What can be checked of other systems from here: nothing that only Unix has is needed to import the package."""

import subprocess
import sys

from videomae import cli

# Modules, and names in others, that Windows has not.
MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty")
NAMES = {
    "os": ("fork", "getuid", "geteuid", "killpg", "mkfifo", "O_NOFOLLOW", "pread", "pwrite", "setsid", "sysconf"),
    "signal": ("SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "setitimer", "pthread_kill"),
    "socket": ("AF_UNIX", "send_fds", "recv_fds"),
    "time": ("tzset",),
}
PROGRAM = f"""
import builtins, importlib, pkgutil, sys
import videomae

names = [m.name for m in pkgutil.walk_packages(videomae.__path__, "videomae.") if not m.name.endswith("__main__")]
for name in names:  # so that what the package needs is imported already, and meets what it expects
    importlib.import_module(name)
for name in [name for name in sys.modules if name.startswith("videomae")]:
    del sys.modules[name]
for module, missing in {NAMES!r}.items():
    for name in missing:
        vars(importlib.import_module(module)).pop(name)
real = builtins.__import__

def without_unix(name, globals=None, *others):
    if name.split(".")[0] in {MODULES!r} and (globals or {{}}).get("__name__", "").startswith("videomae"):
        raise ImportError(f"there is no {{name}} on Windows")
    return real(name, globals, *others)

builtins.__import__ = without_unix
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_is_imported_where_there_is_nothing_of_unix():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 100


def test_a_server_is_refused_where_its_processes_cannot_be_limited(monkeypatch, capsys):
    monkeypatch.setattr("videomae.commands.serve.find_spec", lambda name: None)
    assert cli.run(["serve", "model"]) == 2
    assert "serving needs Linux or another Unix" in capsys.readouterr().err
