# SPDX-License-Identifier: GPL-2.0-or-later
# The template that roll.sls rolls out, on one machine.
{%- set what = salt["pillar.get"]("what") %}
{{ what.name }}:
  qvm_template.installed:
{%- for key, value in what | dictsort if key != "name" and value is not none %}
    - {{ key }}: {{ value | json }}
{%- endfor %}
