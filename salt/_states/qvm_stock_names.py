# SPDX-License-Identifier: GPL-2.0-or-later
"""
``qvm.template_installed``, as .sls files of dom0 have it, where qubes-mgmt-salt-dom0-qvm is not installed.

Any template of the name satisfies it, also one that was cloned. What asks more of a template is ``qvm_template.installed``.
"""

import os

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "qvm"


def __virtual__():
    if "qvm_template.ensure" not in __salt__:
        return False, "the execution module qvm_template is missing"
    # Asking Salt for a function that is nowhere would make it load every module there is; a file is found at once.
    places = [os.path.join(__opts__["extension_modules"], "states"), *__opts__.get("states_dirs", [])]
    if any(os.path.exists(os.path.join(place, "ext_state_qvm.py")) for place in places):
        return False, "qubes-mgmt-salt-dom0-qvm has this name"
    return __virtualname__


def template_installed(name, fromrepo=None, pool=None, **kwargs):
    """
    There is a template of this name.

    fromrepo
        Where there is none, only this repository is asked for it.
    pool
        Storage pool that it goes to; a template that is there is not moved.
    """
    try:
        answer = __salt__["qvm_template.ensure"](
            name, any_template=True, fromrepo=fromrepo or None, pool=pool or None, test=__opts__["test"]
        )
    except SaltInvocationError as error:
        return {"name": name, "result": False, "changes": {}, "comment": str(error)}
    except CommandExecutionError as error:
        return {"name": name, "result": False, "changes": {}, "comment": error.error}
    (entry,) = answer["templates"]
    if entry["action"] == "none":
        return {"name": name, "result": True, "changes": {}, "comment": f"Template {name} already installed"}
    build = f"{entry['after']['evr']} from {entry['after']['reponame']}"
    if entry["outcome"] == "planned":
        comment, result = f"Template {name} version {build} would be installed", None
    else:
        comment, result = f"Template {name} version {build} installed", True
    changes = {"new": {"name": name, "build": entry["after"]["evr"], "reponame": entry["after"]["reponame"]}}
    if entry["outcome"] == "not-finalized":
        comment += ", but its first start did not go as it should"
    return {"name": name, "result": result, "changes": changes, "comment": comment}
