# A networked management qube: it asks the repositories itself, which saves a hop and costs the isolation of dom0's helper.
qvm_template:
  management_qube:
    name: mgmt-net
    create:
      class: StandaloneVM
      template: debian-13-minimal
      netvm: sys-firewall
  updatevm: ''
  program:
    packages: [qvm-template]
  config:
    updatevm: ''
  services: [qubes.TemplateSearch, qubes.TemplateDownload]
  keys:
    RPM-GPG-KEY-acme:
      source: salt://keys/RPM-GPG-KEY-acme
      sha256: 0f343b0931126a20f133d67c2b018a3b5b2d6f1c3a3f2a3b8a5a1f1d2c3b4a59
  repositories:
    acme.repo:
      acme:
        name: Templates of Acme
        baseurl: https://templates.acme.example/$releasever
        enabled: true
        gpgkey: file:///etc/qubes/repo-templates/keys/RPM-GPG-KEY-acme
