# SPDX-License-Identifier: GPL-2.0-or-later
"""
Templates of Qubes OS as they should be.

.. code-block:: yaml

    debian-13-minimal:
      qvm_template.installed:
        - min_version: '4.3.0-202601010000'
        - repository: qubes-templates-itl
        - key: 77EEEF6D0386962AEA8CF84A9B8273F80AC219E6

    fedora-42-xfce:
      qvm_template.retired:
        - to: fedora-43-xfce

With ``test=True`` a state's changes are those that the next run makes. A state that is satisfied by what is installed asks
no repository. A failure says the cause and the advice of ``qvm-template``. A change waits for another one to end, for
``lock_wait`` seconds at most, and then names the process that holds it up.
"""

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "qvm_template"


def __virtual__():
    if "qvm_template.ensure" in __salt__:
        return __virtualname__
    return False, "the execution module qvm_template is missing"


def installed(
    name,
    version=None,
    min_version=None,
    max_age=None,
    repository=None,
    fromrepo=None,
    key=None,
    pool=None,
    allow_overwrite=False,
    skip_start=False,
    allow_pv=False,
    lock_wait=300,
):
    """
    A template of this name is there, and its build is one of those that are asked for.

    name
        Name of the template, and of its package.
    version
        Exactly this build: ``[EPOCH:]VERSION[-RELEASE]``, in quotes.
    min_version
        This build or a newer one.
    max_age
        Days since the build was made, at most.
    repository
        The build comes from this repository.
    fromrepo
        A build that is still to be installed comes from this repository. An installed one may come from anywhere.
    key
        Fingerprint of the certificate that signed the build. Of an installed build it is known where this qube installed it
        and has seen no newer one of its repository since.
    pool
        Storage pool for a template that is not there yet.
    allow_overwrite
        Whether a template that is there, and of another build than asked for, may be replaced: all changes inside it are
        lost. Without it the state fails.
    skip_start, allow_pv
        As the options of ``qvm-template install``.
    """
    return _state(
        name,
        "qvm_template.ensure",
        name,
        version=version,
        min_version=min_version,
        max_age=max_age,
        repository=repository,
        fromrepo=fromrepo,
        key=key,
        pool=pool,
        overwrite=allow_overwrite,
        skip_start=skip_start,
        allow_pv=allow_pv,
        lock_wait=lock_wait,
    )


def latest(
    name,
    allow_overwrite,
    repository=None,
    fromrepo=None,
    key=None,
    pool=None,
    skip_start=False,
    allow_pv=False,
    lock_wait=300,
):
    """
    The newest build that the repositories have is there. They are asked each time.

    allow_overwrite
        Whether an older build may be replaced: all changes inside the template are lost. It has to be said, either way.
        Where it is false, an older build makes the state fail.
    """
    return _state(
        name,
        "qvm_template.ensure",
        name,
        newest=True,
        repository=repository,
        fromrepo=fromrepo,
        key=key,
        pool=pool,
        overwrite=allow_overwrite,
        skip_start=skip_start,
        allow_pv=allow_pv,
        lock_wait=lock_wait,
    )


def absent(name, disassoc=False, lock_wait=300):
    """
    There is no template of this name. One that something uses makes the state fail.

    disassoc
        First turn what uses it over to a dummy or to nothing.
    """
    return _state(name, "qvm_template.ensure", name, absent=True, disassoc=disassoc, lock_wait=lock_wait)


def retired(name, to, running=None, lock_wait=300):
    """
    There is no template of this name, and what used it uses another one.

    to
        The template that takes its place.
    running
        What happens to qubes that run and have to be off for it: ``shutdown`` leaves them off, ``restart`` starts them again.
        Without it the state fails where there are such.
    """
    return _unless_gone(name, "qvm_template.retire", name, to, running=running, lock_wait=lock_wait)


def switched(name, to, running=None, lock_wait=300, **kwargs):
    """
    Nothing uses a template any more; what used it uses another one. The template stays.

    name
        The template that is given up. As ``from`` it can be said beside an identifier of another form.
    to
        The template that takes its place.
    running
        As for ``retired``.
    """
    # `from` is a word of Python and cannot be named above.
    old = kwargs.get("from", name)
    unknown = [key for key in kwargs if key != "from" and not key.startswith("__")]
    if unknown:
        return _result(name, False, f"unknown argument: {', '.join(unknown)}")
    return _unless_gone(name, "qvm_template.switch", old, to, running=running, lock_wait=lock_wait)


def finalized(name, lock_wait=300):
    """
    The first start of a template, in which it says what it supports, went as it should; it is repeated where it did not.
    """
    return _state(name, "qvm_template.finalize", name, lock_wait=lock_wait)


def default(name, default_template=None, default_dispvm=None, management_dispvm=None):
    """
    What the system takes where nobody chose a template; what is not named is left alone, an empty name is none.
    """
    try:
        answer = __salt__["qvm_template.default"](
            default_template, default_dispvm, management_dispvm, test=__opts__["test"]
        )
    except (CommandExecutionError, SaltInvocationError) as error:
        return _result(name, False, _said(error))
    changes = {
        change["property"]: {"old": change["before"], "new": change["after"]} for change in answer["result"]["changes"]
    }
    said = [f"{key}: {change['old'] or 'none'} -> {change['new'] or 'none'}" for key, change in changes.items()]
    return _end(name, changes, "\n".join(said) or "all of it is so already")


def _unless_gone(name, function, old, to, **kwargs):
    """Runs a function that turns something over, unless there is nothing left that it could be turned over from."""
    try:
        there = __salt__["qvm_template.exists"](old)
    except (CommandExecutionError, SaltInvocationError) as error:
        return _result(name, False, _said(error))
    if not there:
        return _result(name, True, f"there is no {old}")
    return _state(name, function, old, to, **kwargs)


def _state(name, function, *args, **kwargs):
    """Runs a function of the execution module and makes a state's result of what it gives."""
    try:
        answer = __salt__[function](*args, test=__opts__["test"], **kwargs)
    except (CommandExecutionError, SaltInvocationError) as error:
        info = getattr(error, "info", None)
        return _result(name, False, _said(error), _changes(info) if isinstance(info, dict) else {})
    entries = answer["templates"]
    said = [*map(_line, entries), *map(_use, answer.get("changes", [])), *answer["warnings"]]
    comment = "\n".join(said) or "nothing to do"
    if any(entry["outcome"] == "not-finalized" for entry in entries):
        comment += "\nIts first start did not go as it should; the state qvm_template.finalized repeats it."
        return _result(name, False, comment, _changes(answer))
    return _end(name, _changes(answer), comment)


def _end(name, changes, comment):
    if changes and __opts__["test"]:
        return _result(name, None, comment, changes)
    return _result(name, True, comment, changes)


def _said(error):
    """What an exception says, without the object that it carries."""
    return getattr(error, "error", None) or str(error)


def _result(name, result, comment, changes=None):
    return {"name": name, "result": result, "comment": comment, "changes": changes or {}}


def _changes(answer):
    """What was, or would be, changed. Only what a plan knows as well as a run does, so that both tell the same."""
    changed = [entry for entry in answer.get("templates", []) if entry["outcome"] in ("done", "planned", "not-finalized")]
    changes = {entry["name"]: _change(entry) for entry in changed if entry["action"] not in ("none", "switch")}
    # What uses a template: a qube by its name, the system itself by a name that no qube can have.
    failed = answer.get("error") is not None
    for use in answer.get("changes", []) if not failed else []:
        holder = changes.setdefault(use["holder"] or "(system)", {})
        holder[use["property"]] = {"old": use["old"], "new": use["new"]}
    return changes


def _change(entry):
    change = {"old": _build(entry["before"]), "new": _build(entry["after"])}
    if change["old"] == change["new"]:
        change["action"] = entry["action"]
    return change


def _build(build):
    return {"build": build["evr"], "repository": build["reponame"]} if build else ""


def _line(entry):
    done = entry["outcome"] in ("done", "not-finalized")
    verb = entry["action"] if done else f"would {entry['action']}"
    builds = " -> ".join(build["evr"] for build in (entry["before"], entry["after"]) if build)
    if entry["outcome"] in ("skipped", "failed"):
        verb, builds = entry["outcome"], (entry.get("error") or {}).get("message", "")
    signer = (entry["after"] or {}).get("signer")
    parts = [f"{entry['name']}: {verb}", builds, entry["reason"], f"signed by {signer}" if signer else None]
    return ", ".join(part for part in parts if part)


def _use(use):
    would = "would set " if use["outcome"] == "planned" else ""
    holder = f"{use['holder']}: " if use["holder"] else ""
    return f"{holder}{would}{use['property']}: {use['old'] or 'none'} -> {use['new'] or 'none'}"
