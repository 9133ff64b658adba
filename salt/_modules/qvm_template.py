# SPDX-License-Identifier: GPL-2.0-or-later
"""
Templates of Qubes OS, through ``qvm-template --json``.

Runs wherever that program does: in a management qube, in dom0, under ``salt-call --local`` and, through the disposable
management qube, under salt-ssh. Every decision is the program's; this module turns values into arguments, runs it without
a shell and hands back what it says.

Configuration (minion configuration, grains or pillar):

``qvm_template.program``
    The program, by name or path. Default: ``qvm-template``.
"""

import json
import re
import time

from salt.exceptions import CommandExecutionError, SaltInvocationError

__virtualname__ = "qvm_template"

__func_alias__ = {"list_": "list"}

# How long a change waits for another one to end, in seconds.
LOCK_WAIT = 300

_FORMS = {
    "name": (r"[A-Za-z][A-Za-z0-9_.-]{0,30}", "the name of a qube"),
    "spec": (r"[A-Za-z][A-Za-z0-9._:+~^-]{0,120}", "the name of a template"),
    "build": (r"(\d+:)?[A-Za-z0-9._+~^]+(-[A-Za-z0-9._+~^]+)?", "a build: [EPOCH:]VERSION[-RELEASE]"),
    "repository": (r"[A-Za-z0-9._+][A-Za-z0-9._+:-]*", "the name of a repository"),
    "fingerprint": (r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}", "a fingerprint of 40 or 64 hexadecimal digits"),
    "pool": (r"[A-Za-z0-9_.][A-Za-z0-9_.-]*", "the name of a storage pool"),
    "days": (r"[1-9][0-9]{0,4}", "a number of days"),
}


def __virtual__():
    # Also where the program is missing: it may be there once the formula has run, and its absence is said by name.
    return __virtualname__


def value(what, form, given):
    """
    A value as an argument. Text that cannot be of this form is refused before anything runs.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.value version build 4.3.0-1
    """
    pattern, meant = _FORMS[form]
    if isinstance(given, float):
        raise SaltInvocationError(f"{what}: {given} is a number to YAML, which may have lost digits; put it in quotes")
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise SaltInvocationError(f"{what}: {given!r} is not {meant}")
    text = str(given)
    if not re.fullmatch(pattern, text):
        raise SaltInvocationError(f"{what}: {text!r} is not {meant}")
    return text


def _options(pairs):
    """``(option, form, value)`` as arguments; what is None is left out, and False with it."""
    arguments = []
    for option, form, given in pairs:
        if form is None:
            if not isinstance(given, bool):
                raise SaltInvocationError(f"{option}: {given!r} is neither true nor false")
            arguments.extend([f"--{option}"] if given else [])
        elif given is not None:
            arguments.append(f"--{option}={value(option, form, given)}")
    return arguments


def call(command, options=(), names=(), lock_wait=LOCK_WAIT, check=True):
    """
    Runs a command of the program and gives the object that it prints.

    A failure raises CommandExecutionError with the program's message and advice, and with the whole object, in which
    ``error`` says the cause and ``templates`` what became of each, as its info. With ``check=False`` it is given back.
    While another change is under way the call is repeated, for ``lock_wait`` seconds at most.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.call repolist
    """
    program = __salt__["config.get"]("qvm_template.program", "qvm-template")
    line = [program, command, "--json", "--progress=none", *options]
    if names:
        line += ["--", *names]
    deadline, pause = time.monotonic() + lock_wait, 0.5
    while True:
        answer = _run(line)
        error = answer.get("error")
        if not error or not check:
            return answer
        if error.get("cause") == "locked" and time.monotonic() + pause < deadline:
            time.sleep(pause)
            pause = min(pause * 2, 10)
            continue
        raise CommandExecutionError(_text(error), info=answer)


def _run(line):
    if not __salt__["cmd.which"](line[0]):
        raise CommandExecutionError(f"{line[0]} is not installed here")
    said = __salt__["cmd.run_all"](
        line, python_shell=False, ignore_retcode=True, env={"LC_ALL": "C.UTF-8"}, stdin="", output_loglevel="debug"
    )
    try:
        answer = json.loads(said["stdout"])
        if answer.get("version") != 1 or not (said["retcode"] == 0 or answer.get("result") or answer.get("error")):
            raise ValueError(said["stdout"][:200])
    except (ValueError, AttributeError) as error:
        # No object: a line that it cannot read, a crash, or the original tool, which has no --json.
        last = [text for text in said["stderr"].splitlines() if text.strip()][-3:]
        reason = "; ".join(last) or f"exit status {said['retcode']}, and no JSON"
        raise CommandExecutionError(f"{' '.join(line[:2])}: {reason}", info=said) from error
    return answer


def _text(error):
    advice = f"\nhelp: {error['help']}" if error.get("help") else ""
    return f"{error['message']}{advice}"


def ensure(
    name,
    absent=False,
    version=None,
    min_version=None,
    max_age=None,
    repository=None,
    fromrepo=None,
    key=None,
    pool=None,
    newest=False,
    overwrite=False,
    disassoc=False,
    skip_start=False,
    allow_pv=False,
    any_template=False,
    test=False,
    lock_wait=LOCK_WAIT,
):
    """
    Makes a template what it should be, and says what that changed. With ``test`` nothing is changed.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.ensure debian-13-minimal min_version=4.3.0 test=True
    """
    options = _options([
        ("absent", None, absent),
        ("build", "build", version),
        ("min-build", "build", min_version),
        ("require-max-age", "days", max_age),
        ("repository", "repository", repository),
        ("repoid", "repository", fromrepo),
        ("signer", "fingerprint", key),
        ("pool", "pool", pool),
        ("newest", None, newest),
        ("overwrite", None, overwrite),
        ("disassoc", None, disassoc),
        ("skip-start", None, skip_start),
        ("allow-pv", None, allow_pv),
        ("any", None, any_template),
    ])  # fmt: skip
    return _change("ensure", options, [value("name", "name", name)], test, lock_wait)


def _change(command, options, names, test, lock_wait):
    options = [*options, "--dry-run" if test else "--yes"]
    return call(command, options, names, lock_wait=lock_wait)


def exists(name):
    """
    Whether there is a qube of this name, of whatever class.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.exists debian-13-minimal
    """
    answer = call("ensure", ["--absent", "--dry-run"], [value("name", "name", name)], check=False)
    # With an error there is one that stays, or what comes next fails for the same reason.
    return answer["result"] != "unchanged"


def switch(old, new, running=None, test=False, lock_wait=LOCK_WAIT):
    """
    Turns everything that uses one template over to another.

    running
        What happens to qubes that run and have to be off for it: ``shutdown`` leaves them off, ``restart`` starts them again.
        Without it nothing is changed where there are such.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.switch fedora-42-xfce fedora-43-xfce test=True
    """
    options = [f"--from={value('from', 'name', old)}", f"--to={value('to', 'name', new)}", *_running(running)]
    return _change("switch", options, [], test, lock_wait)


def retire(name, to, running=None, test=False, lock_wait=LOCK_WAIT):
    """
    Turns everything that uses a template over to another, and removes it.

    running
        As for ``switch``.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.retire fedora-42-xfce fedora-43-xfce test=True
    """
    options = [f"--to={value('to', 'name', to)}", *_running(running)]
    return _change("retire", options, [value("name", "name", name)], test, lock_wait)


def _running(running):
    if running not in (None, "shutdown", "restart"):
        raise SaltInvocationError(f"running: {running!r} is neither 'shutdown' nor 'restart'")
    return [] if running is None else [f"--{running}"]


def finalize(name, test=False, lock_wait=LOCK_WAIT):
    """
    Repeats the first start of a template, but only where it did not go as it should.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.finalize debian-13-minimal
    """
    return _change("ensure", ["--finalized"], [value("name", "name", name)], test, lock_wait)


def default(template=None, dispvm=None, management_dispvm=None, test=False):
    """
    Sets what the system takes where nobody chose a template. An empty name is none.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.default template=debian-13-xfce
    """
    options = []
    for option, given in [("template", template), ("dispvm", dispvm), ("management-dispvm", management_dispvm)]:
        if given == "":
            options.append(f"--{option}=")
        else:
            options += _options([(option, "name", given)])
    return call("default", [*options, *(["--dry-run"] if test else [])])


def list_(spec=None):
    """
    The installed templates: one object each, or those that a specification means.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.list
    """
    return _templates("list", "--installed", spec)


def available(spec=None):
    """
    The newest build of each template that the repositories have.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.available 'debian-*'
    """
    return _templates("list", "--available", spec)


def upgrades(spec=None):
    """
    Newer builds of what is installed.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.upgrades
    """
    return _templates("list", "--upgrades", spec)


def info(name):
    """
    Everything that is known about an installed template; nothing where there is none.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.info debian-13-minimal
    """
    found = _templates("info", "--installed", value("name", "name", name))
    return found[0] if found else {}


def _templates(command, what, spec):
    names = [] if spec is None else [str(spec)]
    answer = call(command, [what], names, check=False)
    error = answer.get("error")
    if error:
        if error.get("status") == 2 and "No matching templates" in error["message"]:
            return []
        raise CommandExecutionError(_text(error), info=answer)
    return answer["result"]["templates"]


def report():
    """
    What a fleet's administrator collects: the build of each template in short, and the program's version.

    CLI Example:

    .. code-block:: bash

        salt '*' qvm_template.report --out=json --static
    """
    builds = {}
    for template in list_():
        build = "{epoch}:{version}-{release}".format(**template)
        builds[template["name"]] = {"build": build, "repository": template["repository"]}
    return {"program": version(), "templates": builds}


def version():
    """
    The program's version.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.version
    """
    program = __salt__["config.get"]("qvm_template.program", "qvm-template")
    if not __salt__["cmd.which"](program):
        raise CommandExecutionError(f"{program} is not installed here")
    said = __salt__["cmd.run_all"]([program, "--version"], python_shell=False)
    return said["stdout"].strip()


def pillar_errors(pillar, schema):
    """
    Where a value is not what a JSON schema wants, one line each: as much of JSON Schema as the formula's own schema uses.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.pillar_errors '{}' '{"type": "object", "required": ["role"]}'
    """
    return _check(schema, schema, pillar, "qvm_template")


_KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}


def _is(given, kind):
    return isinstance(given, _KINDS[kind]) and not (kind == "integer" and isinstance(given, bool))


def _has_form(text, pattern):
    """Whether a text has a form from one end to the other; the `$` of Python lets a line feed follow."""
    if pattern.startswith("^") and pattern.endswith("$"):
        return bool(re.fullmatch(pattern[1:-1], text))
    return bool(re.search(pattern, text))


def _check(root, schema, given, place):
    if "$ref" in schema:
        return _check(root, root["$defs"][schema["$ref"].rpartition("/")[2]], given, place)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(given, kind) for kind in kinds):
        hint = "; put it in quotes" if isinstance(given, float) and "string" in kinds else ""
        return [f"{place}: {given!r} is not of type {' or '.join(kinds)}{hint}"]
    errors = []
    if "enum" in schema and given not in schema["enum"]:
        errors.append(f"{place}: {given!r} is none of {', '.join(map(str, schema['enum']))}")
    if isinstance(given, str) and not _has_form(given, schema.get("pattern", "")):
        errors.append(f"{place}: {given!r} does not have the form {schema['pattern']}")
    if isinstance(given, int) and given < schema.get("minimum", given):
        errors.append(f"{place}: {given} is less than {schema['minimum']}")
    if isinstance(given, dict):
        known = schema.get("properties", {})
        errors += [f"{place}: {key} is missing" for key in schema.get("required", []) if key not in given]
        for key, others in schema.get("dependentRequired", {}).items():
            errors += [f"{place}: {key} needs {other}" for other in others if key in given and other not in given]
        for key, inner in given.items():
            wanted = known.get(key, schema.get("additionalProperties", {}))
            if wanted is False:
                errors.append(f"{place}: {key} is not known; there are: {', '.join(known)}")
            elif wanted is not True:
                errors += _check(root, wanted, inner, f"{place}:{key}")
            if not _has_form(str(key), schema.get("propertyNames", {}).get("pattern", "")):
                errors.append(f"{place}: {key!r} does not have the form {schema['propertyNames']['pattern']}")
    forms = schema.get("oneOf", [])
    if forms and sum(not _check(root, form, given, place) for form in forms) != 1:
        errors.append(f"{place}: has to have exactly one of: {', '.join(form['title'] for form in forms)}")
    if isinstance(given, list):
        for number, inner in enumerate(given):
            errors += _check(root, schema.get("items", {}), inner, f"{place}[{number}]")
    return errors


def rename(text, names):
    """
    A text in which words that name qubes or tags are other ones, all at once: a policy file made ready for a machine.

    CLI Example:

    .. code-block:: bash

        salt-call --local qvm_template.rename 'admin.vm.List + mgmt @tag:created-by-mgmt allow' '{mgmt: admin}'
    """
    if not names:
        return text
    words = "|".join(re.escape(word) for word in sorted(names, key=len, reverse=True))
    # A hyphen belongs to a name, but for the one that joins a qube's name to `created-by`.
    pattern = rf"(?<![\w.-])((?:@tag:)?created-by-)?({words})(?![\w-])"
    return re.sub(pattern, lambda found: (found[1] or "") + value(found[2], "name", names[found[2]]), text)
