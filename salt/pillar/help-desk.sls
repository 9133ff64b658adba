# A help desk that has named templates installed by the management qube; dom0 asks its user each time. Its qubes have the tag
# template-helpdesk. Which templates the policy names is in its file: copy it under another name to name others.
qvm_template:
  management_qube:
    name: mgmt
    create:
      template: debian-13-minimal
      tags: [template-manager]
  updatevm: sys-net
  program:
    packages: [qvm-template]
  persistence: bind-dirs
  config:
    retries: 3
  policy:
    files: [30-qvm-template.policy, 31-qvm-template-helpdesk.policy]
  services:
    - template.List
    - template.Info
    - template.Search
    - template.Plan
    - template.Install
    - template.Upgrade
    - template.Reinstall
    - template.Status
    - template.Cancel
  grants:
    grant:
      - caller: '@tag:template-helpdesk'
        verbs: [list, info, search, plan, install, upgrade, reinstall, status, cancel]
        templates: [debian-13-xfce]
        repositories: [qubes-templates-itl]
        whose: own
        max-image-size: 20 GiB
        max-templates: 3
        max-total-size: 60 GiB
        max-changes-per-hour: 6
