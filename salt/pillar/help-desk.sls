# A help desk that has named templates installed by the management qube; dom0 asks its user each time.
qvm_template:
  management_qube:
    name: mgmt
  updatevm: sys-net
  config:
    retries: 3
  grants:
    grant:
      - caller: help-desk
        verbs: [list, info, plan, install, status, cancel]
        templates: [debian-13-xfce, 'fedora-4?-xfce']
        repositories: [qubes-templates-itl]
        whose: own
        max-image-size: 20 GiB
        max-templates: 3
        max-total-size: 60 GiB
        max-changes-per-hour: 6
