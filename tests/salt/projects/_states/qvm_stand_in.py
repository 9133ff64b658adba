# SPDX-License-Identifier: GPL-2.0-or-later
"""
Stands for the other states of qubes-mgmt-salt-dom0-qvm, which are not ours and which need dom0.

What clones a template fails where there is none, as it would there, so that an order that is not kept shows.
"""

__virtualname__ = "qvm"


def __virtual__():
    return __virtualname__


def clone(name, source, **kwargs):
    """A clone, as far as that its source is there."""
    there = bool(__salt__["qvm_template.info"](source))
    return {"name": name, "result": there, "changes": {}, "comment": f"{source} is {'there' if there else 'missing'}"}


def vm(name, clone=(), **kwargs):
    """All that there is about one qube; here its source."""
    merged = {key: value for part in clone for key, value in part.items()}
    return globals()["clone"](name, merged["source"]) if merged else prefs(name)


def prefs(name, *args, **kwargs):
    """Properties of a qube."""
    return {"name": name, "result": True, "changes": {}, "comment": ""}
