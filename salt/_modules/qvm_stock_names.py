# SPDX-License-Identifier: GPL-2.0-or-later
"""
The names that the states of dom0 have for templates, for .sls files that use them, where those are not installed.

``qvm.template_info`` and ``qvm.template_install`` take and give what they do in qubes-mgmt-salt-dom0-qvm. Where that package is
installed it keeps its own.
"""

import json
import os

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "qvm"


def __virtual__():
    # All functions of one virtual name are one module to Salt: these stand beside whatever else is called qvm.
    places = [os.path.join(__opts__["extension_modules"], "modules"), *__opts__.get("module_dirs", [])]
    if any(os.path.exists(os.path.join(place, "ext_module_qvm.py")) for place in places):
        return False, "qubes-mgmt-salt-dom0-qvm has these names"
    return __virtualname__


def template_info(name, **kwargs):
    """
    What is known about an installed template, or nothing.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm.template_info debian-13-minimal
    """
    program = __salt__["config.get"]("qvm_template.program", "qvm-template")
    name = __salt__["qvm_template.value"]("name", "spec", name)
    line = [program, "info", "--installed", "--machine-readable-json", "--", name]
    said = __salt__["cmd.run_all"](line, python_shell=False, ignore_retcode=True, env={"LC_ALL": "C.UTF-8"})
    if said["retcode"]:
        return {}
    return json.loads(said["stdout"])["installed"][0]


def template_install(name, version=None, fromrepo=None, pool=None, **kwargs):
    """
    Installs a template; one that is there already is left as it is.

    name
        Name of the template.
    version
        Its build: ``[EPOCH:]VERSION[-RELEASE]``.
    fromrepo
        Only this repository is asked.
    pool
        Storage pool that it goes to.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm.template_install debian-13-minimal fromrepo=qubes-templates-itl
    """
    value = __salt__["qvm_template.value"]
    options = ["--yes"]
    try:
        options += [f"--repoid={value('fromrepo', 'repository', fromrepo)}"] if fromrepo else []
        options += [f"--pool={value('pool', 'pool', pool)}"] if pool else []
        spec = value("name", "spec", name) + (f"-{value('version', 'build', version)}" if version else "")
        answer = __salt__["qvm_template.call"]("install", options, [spec])
    except (CommandExecutionError, SaltInvocationError) as error:
        said = getattr(error, "error", None) or str(error)
        raise CommandExecutionError(f"Failed to install template {name}: {said}", getattr(error, "info", None)) from error
    said = [f"{entry['name']}: {entry['action']} {(entry['after'] or {}).get('evr', '')}" for entry in answer["templates"]]
    return {"info": "\n".join([*answer["warnings"], *said])}
