# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests share that run real Salt in a qube of a sandbox.

Places in the qube: /t/repository/salt is salt/ of this repository, /t/tests this folder, /t/sandbox the sandbox's directory.
"""

import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import time
import unittest

import salt.client
import salt.config


SANDBOX = pathlib.Path("/t/sandbox")
REPOSITORY = pathlib.Path("/etc/qubes/repo-templates/test.repo")
PROJECTS = "/t/tests/projects"
ROOTS = ("/t/repository/salt", PROJECTS, *(f"{PROJECTS}/like_{name}" for name in ("securedrop", "qusal", "shaker")))
STATE = pathlib.Path("/var/lib/qvm-template")
# The lock of the original, and ours of one template.
LOCK = "/run/qubes/qvm-template.lock"
LOCK_OF_DEMO = "/run/qubes/qvm-template-demo.lock"


def minion(pillar=None, roots=ROOTS, identity=None):
    """A minion without a master, as `salt-call --local` has it, with the modules of salt/ in it."""
    home = pathlib.Path("/tmp/salt")
    home.mkdir(parents=True, exist_ok=True)
    options = salt.config.minion_config(None)
    options.update(
        root_dir=str(home),
        cachedir=str(home / "cache"),
        pki_dir=str(home / "pki"),
        conf_file=str(home / "minion"),
        extension_modules=str(home / "cache/extmods"),
        file_client="local",
        file_roots={"base": list(roots)},
        pillar_roots={"base": []},
        id=identity or os.uname().nodename,
        log_level="error",
        state_events=False,
        grains={"virtual": "none"},
    )
    options["pillar_override"] = pillar or {}
    salt.client.Caller(mopts=dict(options)).cmd("saltutil.sync_all")
    return salt.client.Caller(mopts=dict(options))


def log():
    """Every call of the sandbox so far."""
    path = SANDBOX / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def publish(folder):
    """Lets the repository `test` have the packages of this folder of sys-net."""
    text = REPOSITORY.read_text()
    lines = [f"baseurl=file:///srv/{folder}" if line.startswith("baseurl") else line for line in text.splitlines()]
    REPOSITORY.write_text("\n".join(lines) + "\n")


def deny(rules):
    """Puts rules before all others of dom0's policy; none takes them away."""
    path = SANDBOX / "qubes/dom0/root/etc/qubes/policy.d/05-deny.policy"
    path.write_text(f"admin.vm.Create.AppVM * mgmt dom0 allow target=dom0\n{rules}\n")


def admin(method, target, payload=""):
    """A call to dom0, as this qube."""
    done = subprocess.run(
        ["qrexec-client-vm", target, method], input=payload.encode(), capture_output=True, check=True
    )
    assert done.stdout.startswith(b"0\0"), done.stdout
    return done.stdout[2:].decode()


def create(name, template=None):
    """A qube that uses a template, or a template that nobody installed, made by this qube."""
    method = f"admin.vm.Create.AppVM+{template}" if template else "admin.vm.Create.TemplateVM"
    admin(method, "dom0", f"name={name} label=red")


def remove(*names):
    """Removes qubes that this qube made, where they are there."""
    for name in names:
        if any(line.startswith(f"{name} ") for line in admin("admin.vm.List", "dom0").splitlines()):
            admin("admin.vm.Remove", name)


class Held:
    """A lock, held by this process."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.file = open(self.path, "a+")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.file.truncate(0)
        self.file.write(f"{os.getpid()} a test\n")
        self.file.flush()
        return self

    def __exit__(self, *_):
        self.file.close()


class SaltCase(unittest.TestCase):
    """A test with a minion of its own."""

    maxDiff = None
    salt = None

    @classmethod
    def setUpClass(cls):
        cls.salt = minion()

    def setUp(self):
        publish("old")
        deny("")
        # Each test begins without a memory of what was seen before.
        shutil.rmtree(STATE, ignore_errors=True)
        self.before = len(log())
        self.began = time.monotonic()

    def single(self, state, test=False, **arguments):
        """One state: its result."""
        answer = self.salt.cmd("state.single", state, test=test, **arguments)
        self.assertIsInstance(answer, dict, answer)
        (result,) = answer.values()
        return result

    def works(self, state, **arguments):
        """A state that works."""
        result = self.single(state, **arguments)
        self.assertIs(result["result"], True, result)
        return result

    def fails(self, state, said, **arguments):
        """A state that fails, with this in its comment, and changes nothing; planned or in earnest."""
        for test in (True, False):
            result = self.single(state, test=test, **arguments)
            self.assertIs(result["result"], False, result)
            self.assertIn(said, result["comment"])
            self.assertEqual(result["changes"], {})
        return result

    def converges(self, state, **arguments):
        """A state whose plan is what it does, and which then has nothing to do: its changes."""
        planned = self.single(state, test=True, **arguments)
        self.assertIs(planned["result"], None, planned)
        done = self.works(state, **arguments)
        self.assertTrue(done["changes"])
        self.assertEqual(planned["changes"], done["changes"])
        self.settled(state, **arguments)
        return done["changes"]

    def settled(self, state, **arguments):
        """A state that has nothing to do, planned or in earnest."""
        for test in (True, False):
            result = self.single(state, test=test, **arguments)
            self.assertIs(result["result"], True, result)
            self.assertEqual(result["changes"], {})
        return result

    def calls(self):
        """The calls since the test began."""
        return log()[self.before :]

    def asked_repositories(self):
        """Whether a repository was asked since the test began."""
        return any(call["service"].startswith("qubes.Template") for call in self.calls())

    def changing(self):
        """The calls since the test began that could change something."""
        reads = (".Get", ".List", ".Info", ".CurrentState", ".ListSnapshots", ".UsageDetails", ".GetAll")
        return [
            f"{call['service']}+{call['arg'] or ''} {call['target']}"
            for call in self.calls()
            if call["service"].startswith("admin.") and not call["service"].endswith(reads)
        ]


def pillar(role):
    """The example pillar of a role, rendered by Salt."""
    caller = minion(identity="pillar")
    return caller.cmd("slsutil.renderer", f"/t/repository/salt/pillar/{role}.sls")


def schema():
    """The schema of the formula's pillar."""
    return json.loads(pathlib.Path("/t/repository/salt/qvm-template/pillar.schema.json").read_text())
