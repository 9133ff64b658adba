# SPDX-License-Identifier: GPL-2.0-or-later
"""Every state of qvm_template, planned, done and done again, in a sandbox."""

import subprocess
import sys
import threading
import time

import support

ONE = {"build": "0:1.0-1", "repository": "test"}
TWO = {"build": "0:2.0-1", "repository": "test"}
STRANGER = "A" * 40


class States(support.SaltCase):
    def tearDown(self):
        support.deny("")
        self.salt.cmd("qvm_template.default", template="")
        support.remove("user-of-demo", "demo", "second", "spare")

    def test_installed(self):
        changes = self.converges("qvm_template.installed", name="demo")
        self.assertEqual(changes, {"demo": {"old": "", "new": ONE}})

    def test_what_is_satisfied_asks_no_repository(self):
        signer = self.install()
        self.before = len(support.log())
        for pins in [
            {},
            {"version": "1.0"},
            {"version": "0:1.0-1"},
            {"min_version": "0.9"},
            {"max_age": 36500},
            {"repository": "test"},
            {"fromrepo": "elsewhere"},
            {"key": signer},
            {"key": signer.upper(), "version": "1.0-1", "repository": "test"},
        ]:
            with self.subTest(pins):
                self.settled("qvm_template.installed", name="demo", **pins)
        self.assertFalse(self.asked_repositories())
        self.assertEqual(self.changing(), [])

    def install(self, name="demo"):
        answer = self.salt.cmd("qvm_template.ensure", name)
        return answer["templates"][0]["after"]["signer"].lower()

    def test_what_differs_is_kept_unless_it_may_be_overwritten(self):
        self.install()
        for pins, said in [
            ({"version": "2.0"}, "is of build 0:1.0-1, not 2.0"),
            ({"min_version": "2.0"}, "is of build 0:1.0-1, older than 2.0"),
            ({"repository": "other"}, "comes from test, not other"),
            ({"key": STRANGER}, f"not {STRANGER.lower()}"),
        ]:
            with self.subTest(pins):
                self.fails("qvm_template.installed", said, name="demo", **pins)
        support.publish("new")
        changes = self.converges("qvm_template.installed", name="demo", version="2.0", allow_overwrite=True)
        self.assertEqual(changes, {"demo": {"old": ONE, "new": TWO}})

    def test_a_minimum_and_a_younger_build(self):
        self.install()
        support.publish("new")
        changes = self.converges("qvm_template.installed", name="demo", min_version="1.5", allow_overwrite=True)
        self.assertEqual(changes, {"demo": {"old": ONE, "new": TWO}})

    def test_pins_that_no_repository_can_meet(self):
        self.fails("qvm_template.installed", "3.0", name="demo", version="3.0")
        self.fails("qvm_template.installed", "older than 3.0", name="demo", min_version="3.0")
        self.assertEqual(self.changing(), [])

    def test_a_signer_whose_key_nobody_has_is_refused(self):
        self.fails("qvm_template.installed", f"is {STRANGER.lower()}, which has to sign it", name="demo", key=STRANGER)
        self.assertEqual(self.changing(), [])

    def test_what_was_seen_before_is_no_surprise_to_a_plan(self):
        support.publish("new")
        self.works("qvm_template.installed", name="demo")
        self.works("qvm_template.absent", name="demo")
        support.publish("old")
        self.fails("qvm_template.installed", "older than 0:2.0-1", name="demo")

    def test_pool(self):
        self.converges("qvm_template.installed", name="demo", pool="varlibqubes")
        said = self.single("qvm_template.installed", name="second", pool="nowhere")
        self.assertIs(said["result"], False, said)

    def test_latest(self):
        self.converges("qvm_template.latest", name="demo", allow_overwrite=False)
        support.publish("new")
        self.fails("qvm_template.latest", "0:2.0-1", name="demo", allow_overwrite=False)
        changes = self.converges("qvm_template.latest", name="demo", allow_overwrite=True)
        self.assertEqual(changes, {"demo": {"old": ONE, "new": TWO}})

    def test_absent(self):
        self.settled("qvm_template.absent", name="demo")
        self.install()
        changes = self.converges("qvm_template.absent", name="demo")
        self.assertEqual(changes, {"demo": {"old": ONE, "new": ""}})

    def test_absent_what_is_in_use(self):
        self.install()
        support.create("user-of-demo", "demo")
        self.fails("qvm_template.absent", "in use", name="demo")
        self.converges("qvm_template.absent", name="demo", disassoc=True)

    def test_default(self):
        self.install()
        changes = self.converges("qvm_template.default", name="new qubes", default_template="demo")
        self.assertEqual(changes["default_template"]["new"], "demo")
        self.fails("qvm_template.default", "no such domain: 'nobody'", name="new qubes", default_template="nobody")
        self.fails("qvm_template.default", "of class TemplateVM", name="x", default_dispvm="demo")
        self.converges("qvm_template.default", name="new qubes", default_template="")
        self.fails("qvm_template.default", "is required", name="nothing")

    def test_finalized(self):
        support.deny("qubes.PostInstall * mgmt @tag:created-by-mgmt deny")
        said = self.single("qvm_template.installed", name="demo")
        self.assertIs(said["result"], False)
        self.assertEqual(said["changes"], {"demo": {"old": "", "new": ONE}})
        self.assertIn("qvm_template.finalized repeats it", said["comment"])
        support.deny("")
        changes = self.converges("qvm_template.finalized", name="demo")
        self.assertEqual(changes, {"demo": {"old": ONE, "new": ONE, "action": "finalize"}})
        self.fails("qvm_template.finalized", "not already installed", name="never-there")

    def use_demo(self):
        """`demo` and `second` are there; a qube and the system use `demo`."""
        self.install()
        self.install("second")
        support.create("user-of-demo", "demo")
        self.salt.cmd("qvm_template.default", template="demo")
        moved = {"old": "demo", "new": "second"}
        return {"user-of-demo": {"template": moved}, "(system)": {"default_template": moved}}

    def test_switched(self):
        uses = self.use_demo()
        changes = self.converges("qvm_template.switched", name="new users", **{"from": "demo", "to": "second"})
        self.assertEqual(changes, uses)
        self.fails("qvm_template.switched", "nowhere", name="demo", to="nowhere")
        self.assertIn("demo", self.salt.cmd("qvm_template.report")["templates"])

    def test_retired(self):
        uses = self.use_demo()
        support.admin("admin.vm.Start", "user-of-demo")
        self.fails("qvm_template.retired", "user-of-demo", name="demo", to="second")
        changes = self.converges("qvm_template.retired", name="demo", to="second", running="shutdown")
        self.assertEqual(changes, {**uses, "demo": {"old": ONE, "new": ""}})
        self.fails("qvm_template.retired", "neither", name="second", to="demo", running="kill")

    def test_what_is_gone_is_retired(self):
        for state, arguments in [("switched", {"to": "second"}), ("retired", {"to": "second"})]:
            self.settled(f"qvm_template.{state}", name="never-there", **arguments)

    def test_arguments_are_checked_before_anything_runs(self):
        for arguments, said in [
            ({"name": "../etc"}, "is not the name of a qube"),
            ({"name": "--all"}, "is not the name of a qube"),
            ({"name": "demo", "version": 4.3}, "put it in quotes"),
            ({"name": "demo", "version": "1 2"}, "is not a build"),
            ({"name": "demo", "min_version": "1\n"}, "is not a build"),
            ({"name": "demo", "max_age": "soon"}, "is not a number of days"),
            ({"name": "demo", "key": "0xABCD"}, "is not a fingerprint"),
            ({"name": "demo", "pool": "a b"}, "is not the name of a storage pool"),
            ({"name": "demo", "repository": "--all"}, "is not the name of a repository"),
            ({"name": "demo", "allow_overwrite": "yes"}, "neither true nor false"),
        ]:
            with self.subTest(arguments):
                self.fails("qvm_template.installed", said, **arguments)
        said = self.single("qvm_template.switched", name="a", to="b", form="c")
        self.assertIn("unknown argument: form", said["comment"])
        self.assertEqual(self.calls(), [])

    def test_without_network_what_is_there_is_enough(self):
        self.install()
        support.publish("nowhere")
        self.settled("qvm_template.installed", name="demo", min_version="1.0")
        self.fails("qvm_template.installed", "", name="second")

    def test_a_refused_call_is_named(self):
        support.deny("admin.vm.Create.TemplateVM * mgmt @adminvm deny")
        said = self.single("qvm_template.installed", name="demo")
        self.assertIs(said["result"], False)
        self.assertIn("admin.vm.Create.TemplateVM", said["comment"])
        self.assertEqual(said["changes"], {})

    def test_a_change_waits_for_another_one(self):
        for lock in (support.LOCK, support.LOCK_OF_DEMO):
            began, held = time.monotonic(), support.Held(lock).__enter__()
            threading.Timer(1.5, held.__exit__).start()
            done = self.works("qvm_template.installed", name="demo", lock_wait=60)
            self.assertTrue(done["changes"])
            self.assertGreater(time.monotonic() - began, 1.5)
            support.remove("demo")

    def test_a_change_that_waits_for_too_long_names_the_holder(self):
        with support.Held(support.LOCK_OF_DEMO):
            said = self.single("qvm_template.installed", name="demo", lock_wait=1)
        self.assertIs(said["result"], False)
        self.assertIn("for 'a test'", said["comment"])
        self.assertEqual(said["changes"], {})

    def test_states_side_by_side(self):
        text = "".join(
            f"{name}:\n  qvm_template.installed:\n    - parallel: True\n" for name in ("demo", "second")
        )
        results = self.salt.cmd("state.template_str", text)
        self.assertEqual([result["result"] for result in results.values()], [True, True], results)
        self.assertEqual(set(self.salt.cmd("qvm_template.report")["templates"]), {"demo", "second"})

    def test_salt_call_itself(self):
        line = ["--local", "--config-dir=/tmp/salt", "--file-root=/t/repository/salt", "--out=json", "--log-level=error"]
        program = [sys.executable, "/t/venv/bin/salt-call", *line]
        subprocess.run([*program, "saltutil.sync_all"], check=True, capture_output=True)
        done = subprocess.run(
            [*program, "state.single", "qvm_template.installed", "demo", "version=1.0-1"], capture_output=True, text=True
        )
        self.assertEqual(done.returncode, 0, done)
        done = subprocess.run([*program, "qvm_template.report"], capture_output=True, text=True, check=True)
        self.assertIn('"demo"', done.stdout)
