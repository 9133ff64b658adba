# SPDX-License-Identifier: GPL-2.0-or-later
"""The formula's part in the management qube, under the policy that its part in dom0 wrote."""

import copy
import hashlib
import json
import pathlib
import subprocess

import support

ROLES = ("offline", "networked", "help-desk", "auditor", "salt")
PARTS = ("program", "config", "repositories", "services", "templates")
CONFIGURATION = pathlib.Path("/etc/qubes")
KEY = pathlib.Path("/etc/qubes/repo-templates/keys/RPM-GPG-KEY-test")


class Management(support.SaltCase):
    def setUp(self):
        pass

    def apply(self, part, pillar, test=False):
        answer = self.salt.cmd(
            "state.apply", f"qvm-template.{part}" if part else "qvm-template", test=test, pillar=pillar
        )
        self.assertIsInstance(answer, dict, answer)
        for result in answer.values():
            wanted = (True, None) if test else (True,)
            self.assertIn(result["result"], wanted, result)
        return {name: result["changes"] for name, result in answer.items() if result["changes"]}

    def converges(self, part, pillar):
        planned = self.apply(part, pillar, test=True)
        done = self.apply(part, pillar)
        self.assertEqual(set(planned), set(done))
        self.assertTrue(done)
        self.assertEqual(self.apply(part, pillar), {})

    def test_every_part_of_every_role_renders(self):
        for role in ROLES:
            pillar = support.pillar(role)
            errors = self.salt.cmd("qvm_template.pillar_errors", pillar["qvm_template"], support.schema())
            self.assertEqual(errors, [], role)
            for part in PARTS:
                with self.subTest(f"{role} {part}"):
                    shown = self.salt.cmd("state.show_sls", f"qvm-template.{part}", pillar=pillar)
                    self.assertIsInstance(shown, dict, shown)

    def test_a_pillar_that_is_not_right_is_named(self):
        for wrong, said in [
            ({"managment_qube": {}}, "managment_qube is not known"),
            ({"management_qube": {"name": "a b"}}, "qvm_template:management_qube:name: 'a b' does not have the form"),
            ({"updatevm": "x\n"}, "qvm_template:updatevm"),
            ({"templates": {"debian-13": {"state": "gone"}}}, "'gone' is none of installed, latest"),
            ({"templates": {"debian-13": {"version": 4.3}}}, "put it in quotes"),
            ({"config": {"retries": 1.5}}, "qvm_template:config:retries"),
            ({"keys": {"x": {"source": "salt://x"}}}, "has to have exactly one of: contents, source with sha256"),
            ({"program": {"source": "salt://x"}}, "qvm_template:program: source needs hashes"),
            ({"keys": {"../x": {}}}, "'../x' does not have the form"),
            ({"repositories": {"a.repo": {"a": {"baseurl": "x\ngpgcheck=0"}}}}, "qvm_template:repositories:a.repo"),
            ({"grants": {"grant": [{"caller": "@anyvm", "verbs": ["list"]}]}}, "qvm_template:grants:grant[0]:caller"),
            ({"grants": {"grant": [{"caller": "a"}]}}, "verbs is missing"),
        ]:
            with self.subTest(said):
                answer = self.salt.cmd("state.apply", "qvm-template", pillar={"qvm_template": wrong})
                self.assertIsInstance(answer, list, answer)
                self.assertIn(said, answer[0])

    def test_nothing_becomes_a_working_management_qube(self):
        key = KEY.read_text()
        program = pathlib.Path("/tmp/program")
        program.write_bytes(pathlib.Path("/usr/bin/qvm-template").read_bytes())
        for path in CONFIGURATION.glob("repo-templates/*.repo"):
            path.unlink()
        pillar = {
            "qvm_template": {
                "program": {
                    "source": "salt://programs",
                    "hashes": {"qvm-template": hashlib.sha256(program.read_bytes()).hexdigest()},
                    "directory": "/home/user/bin",
                },
                "config": {"retries": 2, "keep-cache": False},
                "keys": {"RPM-GPG-KEY-fleet": {"contents": key}},
                "repositories": {
                    "fleet.repo": {
                        "fleet": {
                            "name": "Fleet",
                            "baseurl": "file:///srv/old",
                            "enabled": True,
                            "gpgkey": "file:///etc/qubes/repo-templates/keys/RPM-GPG-KEY-fleet",
                        }
                    }
                },
                "services": ["qubes.TemplateSearch"],
                "grants": copy.deepcopy(support.pillar("help-desk")["qvm_template"]["grants"]),
                "templates": {"demo": {"repository": "fleet"}, "old-demo": {"state": "absent"}},
            }
        }
        served = pathlib.Path("/tmp/served/programs")
        served.mkdir(parents=True)
        program.rename(served / "qvm-template")
        self.salt = support.minion(roots=("/t/repository/salt", "/tmp/served"))
        # What is not what the pillar says it is does not get there.
        wrong = copy.deepcopy(pillar)
        wrong["qvm_template"]["program"]["hashes"]["qvm-template"] = "0" * 64
        (refused,) = self.salt.cmd("state.apply", "qvm-template.program", pillar=wrong).values()
        self.assertIs(refused["result"], False, refused)
        self.assertFalse(pathlib.Path("/home/user/bin/qvm-template").exists())
        self.converges("program", pillar)
        for part in ("config", "repositories", "services"):
            self.converges(part, pillar)
        mode = (pathlib.Path("/home/user/bin/qvm-template").stat().st_mode) & 0o777
        self.assertEqual(mode, 0o755)
        settings = subprocess.run(["qvm-template", "--json", "config"], capture_output=True, text=True, check=True)
        values = {row["key"]: row["value"] for row in json.loads(settings.stdout)["result"]["settings"]}
        self.assertEqual((values["retries"], values["keep-cache"]), ("2", "false"))
        listed = self.salt.cmd("qvm_template.call", "repolist")
        self.assertEqual([row["id"] for row in listed["result"]["repositories"]], ["fleet"])
        self.converges("templates", pillar)
        self.assertEqual(
            self.salt.cmd("qvm_template.report")["templates"], {"demo": {"build": "0:1.0-1", "repository": "fleet"}}
        )
        # All of it together has nothing left to do.
        self.assertEqual(self.apply("", pillar), {})

    def test_what_is_granted_is_what_the_program_reads(self):
        for role, caller in [("help-desk", "@tag:template-helpdesk"), ("auditor", "@tag:template-auditor")]:
            self.apply("config", support.pillar(role))
            read = self.salt.cmd("qvm_template.call", "grants", names=["check"])["result"]
            self.assertEqual(read["grants"], 1)
            self.assertIn(caller, json.dumps(read["matrix"]))
        # Without grants in the pillar nobody is granted anything.
        self.apply("config", {"qvm_template": {}})
        self.assertFalse((CONFIGURATION / "qvm-template-grants.toml").exists())

    def test_each_role_offers_the_services_that_its_policy_names(self):
        for role in ("help-desk", "auditor"):
            pillar = support.pillar(role)["qvm_template"]
            (rules,) = [file for file in pillar["policy"]["files"] if file.startswith("31-")]
            text = pathlib.Path(f"/t/repository/qrexec-policy/{rules}").read_text()
            named = {line.split()[0] for line in text.splitlines() if line.startswith("template.")}
            self.assertEqual(set(pillar["services"]), named)
            verbs = {f"template.{verb.capitalize()}" for verb in pillar["grants"]["grant"][0]["verbs"]}
            self.assertEqual(verbs, named)
            self.apply("services", {"qvm_template": pillar})
            self.assertEqual(self.apply("services", {"qvm_template": pillar}), {})

    def test_the_orchestration_renders(self):
        pillar = {"template": "demo", "build": "1.0-1"}
        shown = self.salt.cmd("state.show_sls", "orchestrate.roll", pillar=pillar)
        self.assertIsInstance(shown, dict, shown)
        order = sorted(
            (name for name in shown if not name.startswith("__")),
            key=lambda name: [part["order"] for part in shown[name]["salt"] if isinstance(part, dict) and "order" in part][0],
        )
        self.assertEqual(order, ["plan", "canaries", "fleet", "report"])
        answer = self.salt.cmd("state.show_sls", "orchestrate.roll", pillar={"template": "demo"})
        self.assertIn("has to name a template and its build", str(answer))
        what = {"name": "demo", "version": "1.0-1", "repository": None, "key": None, "allow_overwrite": True}
        shown = self.salt.cmd("state.show_sls", "orchestrate.template", pillar={"what": what})
        self.assertIn({"version": "1.0-1"}, shown["demo"]["qvm_template"])
