# An offline management qube: it has no network, the UpdateVM asks the repositories. This is the usual one.
qvm_template:
  management_qube:
    name: mgmt
    create:
      template: debian-13-minimal
      label: black
      netvm: ''
  updatevm: sys-net
  program:
    packages: [qvm-template]
  persistence: bind-dirs
  config:
    retries: 3
  templates:
    debian-13-minimal:
      min_version: '4.3.0'
      fromrepo: qubes-templates-itl
    fedora-43-xfce:
      state: latest
      allow_overwrite: false
    fedora-42-xfce:
      state: retired
      to: fedora-43-xfce
