# A management qube in which Salt keeps the templates of this machine as the fleet has them. orchestrate/roll.sls sets `build`.
qvm_template:
  management_qube:
    name: mgmt
  updatevm: sys-net
  program:
    source: salt://qvm-template/files/bin
    hashes:
      qvm-template: 0f343b0931126a20f133d67c2b018a3b5b2d6f1c3a3f2a3b8a5a1f1d2c3b4a59
    directory: /usr/local/bin
  persistence: bind-dirs
  templates:
    debian-13-xfce:
      version: {{ salt["pillar.get"]("build", "4.3.0-202601010000") | json }}
      repository: qubes-templates-itl
      max_age: 400
      allow_overwrite: true
    debian-12-xfce:
      state: retired
      to: debian-13-xfce
    defaults:
      state: default
      default_template: debian-13-xfce
