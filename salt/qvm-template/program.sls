# SPDX-License-Identifier: GPL-2.0-or-later
# The programs: from a package, or from the file server into a directory that the qube keeps.
{%- from "qvm-template/map.jinja" import settings, root, checked with context %}
{%- set program = settings.program %}
{%- if program.packages %}
qvm-template-packages:
  pkg.installed:
    - pkgs: {{ program.packages | json }}
    - reload_modules: True
{%- endif %}
{%- if program.source is defined %}
{#- What a service file starts is where the service files look for it. #}
{%- set of_services = ["qvm-template-delegate", "qubes-template-service"] %}
{%- for name, hash in program.hashes | dictsort %}
{{ root }}{{ "/usr/lib/qubes" if name in of_services else program.directory }}/{{ name }}:
  file.managed:
    - source: {{ (program.source ~ '/' ~ name) | json }}
    {{ checked(program.source, hash) }}
    - mode: '0755'
    - makedirs: True
{%- endfor %}
{%- endif %}
{%- if not program.packages and program.source is not defined %}
qvm-template-is-there:
  test.nop:
    - name: the pillar names neither packages nor a source, so the programs are taken to be there
{%- endif %}
{%- if settings.persistence == "bind-dirs" %}

# An AppVM keeps /rw, /home and /usr/local only; Qubes binds these from there when the qube starts.
{{ root }}/rw/config/qubes-bind-dirs.d/50_qvm-template.conf:
  file.managed:
    - contents: |
        binds+=( '/etc/qubes/repo-templates' )
        binds+=( '/etc/qubes/qvm-template.toml' )
        binds+=( '/etc/qubes/qvm-template-grants.toml' )
        binds+=( '/var/lib/qvm-template' )
        {%- for name in ["qvm-template-delegate", "qubes-template-service"] if program.source is defined and name in program.hashes %}
        binds+=( '/usr/lib/qubes/{{ name }}' )
        {%- endfor %}
        {%- for service in settings.services %}
        binds+=( '/etc/qubes-rpc/{{ service }}' )
        {%- endfor %}
    - mode: '0644'
    - makedirs: True
{%- endif %}
