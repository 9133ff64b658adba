# SPDX-License-Identifier: GPL-2.0-or-later
# dom0's policy: the files of qrexec-policy/ with the names of this machine. With test=True the difference is shown.
{%- from "qvm-template/map.jinja" import settings, root with context %}
{%- set names = {"mgmt": settings.management_qube.name} %}
{%- if settings.updatevm %}
{%- do names.update({"sys-net": settings.updatevm}) %}
{%- endif %}
{%- do names.update(settings.policy.names) %}
{%- for file in settings.policy.files %}
{%- set rules = salt["cp.get_file_str"]("salt://qvm-template/files/qrexec-policy/" ~ file) %}
{%- if not rules %}
{{ raise("there is no policy file " ~ file ~ " in salt://qvm-template/files/qrexec-policy") }}
{%- endif %}
{{ root }}/etc/qubes/policy.d/{{ file }}:
  file.managed:
    - contents: {{ salt["qvm_template.rename"](rules, names) | json }}
    - mode: '0644'
    - makedirs: True
{%- if salt["cmd.which"]("qubes-policy-lint") %}
    - check_cmd: qubes-policy-lint
{%- endif %}
{%- endfor %}
