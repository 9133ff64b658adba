# An auditor who may look at everything and change nothing. Its qubes have the tag template-auditor.
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
  policy:
    files: [30-qvm-template.policy, 31-qvm-template-auditor.policy]
  services: [template.List, template.Info]
  grants:
    audit-log: /var/lib/qvm-template/audit.jsonl
    grant:
      - caller: '@tag:template-auditor'
        verbs: [list, info]
        templates: ['*']
        repositories: [qubes-templates-itl]
        whose: shared
