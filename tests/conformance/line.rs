//! A sandboxed system in this process, as a qube's `qrexec-client-vm` and as dom0 reach it.

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use qvm_template::sandbox::policy::{self, Directories, LoadError, Policy, Verdict};
use qvm_template::sandbox::qubesd::{self, Destination, Qubesd, ServiceCall, Visibility};
use qvm_template::sandbox::server::decision::{Grounds, cleaned, facts_for_policy};
use qvm_template::sandbox::{fixture, fresh};
use serde_json::Value;

use super::feed::{Feed, Kept};

/// What a question to the user is answered with.
#[derive(Clone, Debug)]
pub enum Says {
    /// No.
    Deny,
    /// The first target on offer.
    Allow,
    /// This target, on offer or not.
    Target(String),
}

/// Policies by name, each in a directory of its own.
#[derive(Debug)]
pub struct Policies(HashMap<String, Arc<Result<Policy, LoadError>>>);

impl Policies {
    /// Reads the rule sets of a recording's head, each in a file of this name beside the stock files.
    pub fn read(rules: &Value, file: &str, dir: &Path) -> anyhow::Result<Self> {
        let mut policies = HashMap::new();
        for (name, lines) in rules.as_object().context("finding the rule sets")? {
            let root = dir.join(name);
            let folder = root.join("etc/qubes/policy.d");
            std::fs::create_dir_all(&folder).context("making a policy directory")?;
            let lines: Vec<&str> = lines.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let text = format!("# rules of the recording\n{}\n", lines.join("\n"));
            std::fs::write(folder.join(file), text).context("writing a policy file")?;
            for (stock, text) in fresh::STOCK_POLICY {
                std::fs::write(folder.join(stock), text).context("writing a policy file")?;
            }
            policies.insert(name.clone(), Arc::new(Policy::load(&Directories::of_dom0(&root))));
        }
        Ok(Self(policies))
    }
}

/// One system with the policy in force.
#[derive(Debug)]
pub struct System {
    server: Qubesd,
    policies: Arc<Policies>,
    eyes: Arc<Eyes>,
    _dir: tempfile::TempDir,
}

#[derive(Debug)]
struct Eyes(Mutex<Arc<Result<Policy, LoadError>>>);

impl Eyes {
    fn policy(&self) -> Arc<Result<Policy, LoadError>> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Visibility for Eyes {
    fn allows(&self, facts: &qubesd::Facts, source: &str, service: &str, arg: &str, target: &str) -> bool {
        let policy = self.policy();
        let facts = facts_for_policy(facts);
        let argument = format!("+{arg}");
        let call = policy::Call::new((service, &argument), source, target, &facts, &mut Vec::new());
        match (&*policy, call) {
            (Ok(policy), Ok(call)) => {
                matches!(policy.evaluate(&call, &facts, &mut Vec::new()), Ok(Verdict::Allow { .. }))
            }
            _ => false,
        }
    }
}

/// A call that runs.
#[derive(Debug)]
pub struct Running {
    pub feed: Feed,
    pub output: Kept,
    pub errors: Kept,
    pub decision: Vec<String>,
    thread: std::thread::JoinHandle<i32>,
}

impl Running {
    /// Waits for its end: the exit status.
    pub fn end(self) -> (i32, Vec<u8>, Vec<u8>) {
        let status = self.thread.join().unwrap_or(-1);
        (status, self.output.bytes(), self.errors.bytes())
    }

    fn run(
        decision: Vec<String>,
        run: impl FnOnce(&mut Feed, &mut Kept, &mut Kept) -> i32 + Send + 'static,
    ) -> Self {
        let (feed, output, errors) = (Feed::default(), Kept::default(), Kept::default());
        let (mut input, mut out, mut err) = (feed.clone(), output.clone(), errors.clone());
        let thread = std::thread::spawn(move || {
            let status = run(&mut input, &mut out, &mut err);
            input.done();
            status
        });
        Self { feed, output, errors, decision, thread }
    }
}

const REFUSED: i32 = 126;

impl System {
    /// A fresh system of a recording's fixture.
    pub fn new(fixture: &Value, policies: &Arc<Policies>) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir().context("making a directory for a sandbox")?;
        let server = Qubesd::create(&dir.path().join("sandbox"), fixture::read(fixture)?)?;
        let eyes = Arc::new(Eyes(Mutex::new(Arc::new(Ok(Policy::default())))));
        server.set_visibility(Arc::clone(&eyes) as Arc<dyn Visibility>);
        Ok(Self { server, policies: Arc::clone(policies), eyes, _dir: dir })
    }

    /// Puts another rule set in force.
    pub fn enforce(&self, name: &str) -> anyhow::Result<()> {
        let policy = self.policies.0.get(name).with_context(|| format!("finding rule set {name}"))?;
        *self.eyes.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(policy);
        Ok(())
    }

    /// The server.
    pub fn server(&self) -> &Qubesd {
        &self.server
    }

    /// A call over qrexec.
    pub fn call(&self, source: &str, target: &str, service: &str, arg: Option<&str>, says: &Says) -> Running {
        let service = match arg {
            Some(arg) => format!("{service}+{arg}"),
            None => service.to_owned(),
        };
        let mut decision = Vec::new();
        // The client takes the older spelling of keywords as well.
        let target = target.replace('$', "@");
        let Some((target, service)) = cleaned(target.as_bytes(), service.as_bytes()) else {
            return refused(decision);
        };
        let grounds = Grounds {
            policy: &self.eyes.policy(),
            facts: &facts_for_policy(&self.server.facts()),
            refused: &[],
            answer: &|targets, default_target| match says {
                Says::Deny => None,
                Says::Allow => default_target.or_else(|| targets.first().cloned()),
                Says::Target(target) => Some(target.clone()),
            },
        };
        let Some(allowed) = grounds.decide(source, &target, &service, None, &mut decision) else {
            return refused(decision);
        };
        if allowed.to == "dom0" {
            let call = ServiceCall {
                source: source.to_owned(),
                service: allowed.service,
                arg: allowed.arg,
                target: Destination::of_target(&allowed.requested),
            };
            return self.service(call, decision);
        }
        if self.server.start_for_call(&allowed.to).is_err() {
            return refused(decision);
        }
        let status = self.service_in_guest(&allowed.to, &allowed.service, says, &mut decision);
        Running::run(decision, move |_, _, _| status)
    }

    /// A service file that dom0 itself runs.
    pub fn dom0_service(&self, target: &str, service: &str, arg: &str) -> Running {
        let call = ServiceCall {
            source: "dom0".to_owned(),
            service: service.to_owned(),
            arg: arg.to_owned(),
            target: Destination::Name(target.to_owned()),
        };
        let server = self.server.clone();
        Running::run(Vec::new(), move |input, output, errors| {
            server.service(&call, input, output, errors).unwrap_or(125)
        })
    }

    fn service(&self, call: ServiceCall, decision: Vec<String>) -> Running {
        let server = self.server.clone();
        // What a service of dom0 says on its standard error stays in dom0.
        Running::run(decision, move |input, output, _| {
            server.service(&call, input, output, &mut std::io::sink()).unwrap_or(125)
        })
    }

    /// What the system in a volume answers itself.
    fn service_in_guest(&self, qube: &str, service: &str, says: &Says, decision: &mut Vec<String>) -> i32 {
        let Some(guest) = self.server.guest(qube).filter(|_| service == "qubes.PostInstall") else {
            return 127;
        };
        for (name, value) in &guest.features {
            self.server.put_feature_request(qube, name, value);
        }
        let running = self.call(qube, "dom0", "qubes.FeaturesRequest", None, says);
        decision.extend(running.decision.iter().cloned());
        running.end();
        guest.post_install
    }
}

fn refused(decision: Vec<String>) -> Running {
    Running::run(decision, |_, _, errors| {
        // A buffer takes everything.
        let _ = errors.write_all(b"Request refused\n");
        REFUSED
    })
}
