# -*- coding: utf-8 -*-
# The template of its system qubes; what changes it runs only where it was just installed.
{% from 'workstation/defaults.sls' import release with context %}

include:
  - workstation.base

dom0-has-the-system-template:
  qvm.template_installed:
    - name: {{ release.system }}

before-anything-uses-it:
  test.succeed_with_changes:
    - onchanges:
      - qvm: dom0-has-the-system-template
