# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of the shapes that projects have which install templates with the states of dom0, under those states' names."""

from salt.exceptions import CommandExecutionError

import support

DEBIAN = "debian-13-minimal"


def templates(answer):
    """The results of the states of templates."""
    return {one["name"]: one for key, one in answer.items() if key.endswith("-template_installed")}


def changes(results):
    """What they changed."""
    return {name: one["changes"] for name, one in results.items() if one["changes"]}


class Projects(support.SaltCase):
    def tearDown(self):
        support.deny("")
        support.remove(DEBIAN, "fedora-43-xfce", "whonix-gateway-18", "whonix-workstation-18")

    def apply(self, sls, test=False):
        answer = self.salt.cmd("state.apply", sls, test=test)
        self.assertIsInstance(answer, dict, answer)
        return answer

    def applies(self, sls, *names):
        """A file that installs these templates, as it says it would, and then nothing."""
        planned = templates(self.apply(sls, test=True))
        self.assertEqual({name for name, one in planned.items() if one["result"] is None}, set(names), planned)
        self.assertEqual(self.changing(), [])
        done = self.apply(sls)
        self.assertEqual([one for one in done.values() if one["result"] is not True], [])
        self.assertEqual(changes(templates(done)), changes(planned))
        self.assertEqual(set(changes(planned)), set(names))
        self.before = len(support.log())
        for test in (False, True):
            for one in templates(self.apply(sls, test=test)).values():
                self.assertEqual((one["result"], one["changes"]), (True, {}))
        self.assertFalse(self.asked_repositories())
        return done

    def test_securedrop_workstation(self):
        self.applies("workstation.base", DEBIAN)
        done = self.applies("workstation.system", "fedora-43-xfce")
        ran = [one for key, one in done.items() if "before-anything-uses-it" in key]
        self.assertTrue(ran[0]["changes"], "onchanges sees the installation")
        again = [one for key, one in self.apply("workstation.system").items() if "before-anything-uses-it" in key]
        self.assertFalse(again[0]["changes"], "and only that")

    def test_qusal(self):
        self.applies("debian-minimal.create", DEBIAN)
        info = self.salt.cmd("qvm.template_info", DEBIAN)
        self.assertEqual((info["version"], info["reponame"]), ("1.0", "qubes-templates-itl"))

    def test_shaker(self):
        self.applies("multimedia.clone", DEBIAN)

    def test_a_repository_that_is_not_enabled_a_pool_and_two_at_once(self):
        self.applies("whonix", "whonix-gateway-18", "whonix-workstation-18")

    def test_any_template_of_the_name_will_do(self):
        support.create(DEBIAN)
        self.before = len(support.log())
        (one,) = self.apply("template-debian-13-minimal").values()
        self.assertEqual((one["result"], one["changes"]), (True, {}))
        self.assertIn("already installed", one["comment"])
        self.assertFalse(self.asked_repositories())

    def test_a_failure_says_why(self):
        support.deny("admin.vm.Create.TemplateVM * mgmt @adminvm deny")
        (one,) = self.apply("template-debian-13-minimal").values()
        self.assertIs(one["result"], False)
        self.assertIn("admin.vm.Create.TemplateVM", one["comment"])
        # What requires it is left out.
        done = self.apply("multimedia.clone")
        self.assertEqual([one["result"] for one in done.values()], [False, False])

    def test_module(self):
        self.assertEqual(self.salt.cmd("qvm.template_info", DEBIAN), {})
        said = self.salt.cmd("qvm.template_install", DEBIAN, version="1.0", fromrepo="qubes-templates-itl", pool="varlibqubes")
        self.assertIn("0:1.0-1", said["info"])
        info = self.salt.cmd("qvm.template_info", DEBIAN)
        self.assertEqual(
            {key: info[key] for key in ("name", "epoch", "version", "release", "reponame")},
            {"name": DEBIAN, "epoch": "0", "version": "1.0", "release": "1", "reponame": "qubes-templates-itl"},
        )
        # As the original: one that is there is no failure, and what is nowhere is one.
        self.salt.cmd("qvm.template_install", DEBIAN)
        for arguments in ({"name": "nowhere"}, {"name": DEBIAN, "fromrepo": "--all"}, {"name": "-x"}):
            with self.assertRaisesRegex(CommandExecutionError, "Failed to install template"):
                self.salt.cmd("qvm.template_install", **arguments)

    def test_states_of_others_with_the_same_name_stay(self):
        (done,) = self.salt.cmd("state.single", "qvm.prefs", name="x").values()
        self.assertIs(done["result"], True)
