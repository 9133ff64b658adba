# -*- coding: utf-8 -*-
# As SecureDrop Workstation has it: one template for the base of its own, by an identifier that is not the name, and a qube
# with everything in one state that requires it.
{% from 'workstation/defaults.sls' import release with context %}

dom0-has-the-base-template:
  qvm.template_installed:
    - name: {{ release.template }}

own-base:
  qvm.vm:
    - name: own-base-{{ release.debian }}
    - clone:
      - source: {{ release.template }}
      - label: red
    - prefs:
      - default_dispvm: ""
    - require:
      - qvm: dom0-has-the-base-template
