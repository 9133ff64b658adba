# SPDX-License-Identifier: GPL-2.0-or-later
"""The formula's part in dom0: the policy, for a management qube and an UpdateVM of other names and for those of the sandbox."""

import pathlib

import support

POLICY = pathlib.Path("/etc/qubes/policy.d")


class Dom0(support.SaltCase):
    @classmethod
    def setUpClass(cls):
        cls.salt = support.minion(identity="dom0")

    def setUp(self):
        pass

    def apply(self, pillar, test=False):
        answer = self.salt.cmd("state.apply", "qvm-template.policy", test=test, pillar={"qvm_template": pillar})
        self.assertIsInstance(answer, dict, answer)
        return list(answer.values())

    def test_names_are_those_of_the_machine(self):
        root = "/tmp/elsewhere"
        pillar = {"root": root, "management_qube": {"name": "admin-templates"}, "updatevm": "sys-firewall"}
        (planned,) = self.apply(pillar, test=True)
        self.assertIsNone(planned["result"], planned)
        written = pathlib.Path(f"{root}/etc/qubes/policy.d/30-qvm-template.policy")
        self.assertFalse(written.exists())
        (done,) = self.apply(pillar)
        self.assertTrue(done["result"], done)
        rules = [line.split() for line in written.read_text().splitlines() if line and line[0] != "#"]
        self.assertEqual({rule[2] for rule in rules}, {"admin-templates"})
        targets = {rule[3] for rule in rules}
        self.assertIn("@tag:created-by-admin-templates", targets)
        self.assertIn("sys-firewall", targets)
        self.assertFalse({"sys-net", "@tag:created-by-mgmt"} & targets)
        # Nothing but names differs from the file of the repository.
        ours = pathlib.Path("/t/repository/qrexec-policy/30-qvm-template.policy").read_text()
        back = written.read_text().replace("admin-templates", "mgmt").replace("sys-firewall", "sys-net")
        self.assertEqual(back, ours)
        (again,) = self.apply(pillar)
        self.assertEqual((again["result"], again["changes"]), (True, {}))

    def test_the_policy_of_this_system_is_the_formulas(self):
        # The one that the sandbox has already; the tests in mgmt then live under what Salt wrote.
        (POLICY / "30-qvm-template.policy").unlink()
        (done,) = self.apply({})
        self.assertTrue(done["result"] and done["changes"], done)
        (again,) = self.apply({})
        self.assertEqual((again["result"], again["changes"]), (True, {}))

    def test_a_file_that_is_not_there_is_named(self):
        answer = self.salt.cmd(
            "state.apply", "qvm-template.policy", pillar={"qvm_template": {"policy": {"files": ["99-none.policy"]}}}
        )
        self.assertIn("99-none.policy", str(answer))

    def test_every_role_renders_here(self):
        for role in ("offline", "networked", "help-desk", "auditor", "salt"):
            with self.subTest(role):
                pillar = support.pillar(role)
                shown = self.salt.cmd("state.show_sls", "qvm-template.policy", pillar=pillar)
                self.assertIsInstance(shown, dict, shown)
                if "create" in pillar["qvm_template"]["management_qube"]:
                    qube = self.salt.cmd("state.show_sls", "qvm-template.qube", pillar=pillar)
                    self.assertIn("qvm-template-qube", qube)
