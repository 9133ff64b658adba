#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Records what a real Qubes system answers, for comparison with tests/recordings.
#
# Run it in a management qube in which qvm-template and qubes-sandbox are installed:
#
#     sh record-on-qubes.sh [-o FOLDER] [--changes TEMPLATE.rpm]
#
# Some of what it asks is not granted to a management qube, so that refusals are recorded too: the desktop shows a
# message for each of those. It only reads, unless --changes names a template package that may be installed, reinstalled and removed again.
# Nothing is sent anywhere: look at FOLDER (qubes-recordings without -o) and attach it to a report. The recordings
# hold the names, features and tags of the qubes that this qube may see, and what the repositories said.
set -eu

folder=qubes-recordings
package=
while [ $# -gt 0 ]; do
    case $1 in
        -o) folder=$2; shift 2 ;;
        --changes) package=$2; shift 2 ;;
        *) sed -n '5,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
[ -x /usr/bin/qrexec-client-vm ] || { echo "this is no qube: there is no /usr/bin/qrexec-client-vm" >&2; exit 1; }
mkdir -p "$folder"

# One recording a command line: what it exchanged, what it printed, how it ended.
record() {
    name=$1
    shift
    status=0
    qubes-sandbox record -o "$folder/$name.jsonl" -- "$@" \
        >"$folder/$name.stdout" 2>"$folder/$name.stderr" </dev/null || status=$?
    echo "$status" >"$folder/$name.rc"
    echo "$name: $*: status $status"
}

{
    echo "release: $(cat /usr/share/qubes/marker-vm 2>/dev/null | grep -v '^#' | head -n 1)"
    echo "tool: $(qvm-template --version 2>/dev/null || echo unknown)"
    for program in qubes-core-qrexec qubes-core-admin-client; do
        echo "$program: $(rpm -q "$program" 2>/dev/null || dpkg-query -W "$program" 2>/dev/null || echo unknown)"
    done
} >"$folder/software.txt"

record list qrexec-client-vm dom0 admin.vm.List
record labels qrexec-client-vm dom0 admin.label.List
record pools qrexec-client-vm dom0 admin.pool.List
record nobody qrexec-client-vm no-such-qube admin.vm.feature.List
record unknown qrexec-client-vm dom0 no.such.Service
record installed qvm-template list --installed --machine-readable-json
record available qvm-template list --available --machine-readable-json
record upgrades qvm-template list --upgrades
record repolist qvm-template repolist

if [ -n "$package" ]; then
    record install qvm-template install --yes "$package"
    template=$(rpm -qp --nosignature --qf '%{NAME}' "$package" 2>/dev/null | sed 's/^qubes-template-//')
    record reinstall qvm-template reinstall --yes "$package"
    record remove qvm-template remove --yes "$template"
fi
echo "recorded in $folder"
