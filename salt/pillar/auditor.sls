# An auditor who may look at everything and change nothing.
qvm_template:
  management_qube:
    name: mgmt
  updatevm: sys-net
  grants:
    audit-log: /var/log/qvm-template/audit.jsonl
    grant:
      - caller: '@tag:template-auditor'
        verbs: [list, info, search, plan, status]
        templates: ['*']
        repositories: [qubes-templates-itl]
        whose: shared
