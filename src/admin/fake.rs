//! A dom0 in memory, for unit tests of what stands on the Admin API.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;

use super::{AdminApi, CallError, CallName, CallResult, Import, Pending};

/// A qube of the fake.
#[derive(Clone, Debug, Default)]
pub struct FakeQube {
    /// Class.
    pub class: String,
    /// Power state.
    pub state: String,
    /// Features.
    pub features: BTreeMap<String, String>,
    /// Properties that somebody set.
    pub properties: BTreeMap<String, String>,
    /// Content of the volumes.
    pub volumes: BTreeMap<String, Vec<u8>>,
    /// Earlier contents by name, oldest first; at most two are kept.
    pub revisions: BTreeMap<String, Vec<(String, Vec<u8>)>>,
    /// How many there have been.
    pub commits: usize,
}

/// What a rule of the fake answers.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Policy refuses.
    Denied,
    /// An exception of this class with this text.
    Exception(&'static str, &'static str),
    /// Nothing is answered.
    Empty,
}

/// A dom0 that lives in memory.
#[derive(Debug, Default)]
pub struct FakeAdmin {
    /// Qubes by name.
    pub qubes: RefCell<BTreeMap<String, FakeQube>>,
    /// Calls that go wrong: method, argument (empty for any), what happens.
    pub faults: RefCell<Vec<(&'static str, &'static str, Fault)>>,
    /// Changing calls so far, as `METHOD+ARG DEST PAYLOAD`.
    pub changes: RefCell<Vec<String>>,
    /// All calls so far, as `METHOD+ARG DEST`.
    pub calls: RefCell<Vec<String>>,
}

impl FakeAdmin {
    /// A machine with these qubes: name, class, state.
    pub fn with(qubes: &[(&str, &str, &str)]) -> Self {
        let fake = Self::default();
        for (name, class, state) in qubes {
            let qube = FakeQube { class: (*class).into(), state: (*state).into(), ..FakeQube::default() };
            fake.qubes.borrow_mut().insert((*name).into(), qube);
        }
        fake
    }

    /// Makes `method` go wrong from now on.
    pub fn fail(&self, method: &'static str, arg: &'static str, fault: Fault) {
        self.faults.borrow_mut().push((method, arg, fault));
    }

    /// The changing calls, without what stands before the method.
    pub fn changed(&self) -> Vec<String> {
        self.changes.borrow().clone()
    }

    fn answer(&self, call: &CallName, payload: &[u8]) -> CallResult {
        let arg = call.arg.as_deref().unwrap_or("");
        let plus = call.arg.as_ref().map_or_else(String::new, |arg| format!("+{arg}"));
        self.calls.borrow_mut().push(format!("{}{plus} {}", call.method, call.dest));
        let reading = ["List", "Get", "Info", "ListSnapshots", "CurrentState", "UsageDetails"]
            .iter()
            .any(|end| call.method.ends_with(&format!(".{end}")));
        if !reading {
            let payload = String::from_utf8_lossy(payload);
            let line = format!("{}{plus} {} {payload}", call.method, call.dest);
            self.changes.borrow_mut().push(line.trim_end().to_owned());
        }
        let fault = self.faults.borrow().iter().find_map(|(method, wanted, fault)| {
            (*method == call.method && (wanted.is_empty() || *wanted == arg)).then(|| fault.clone())
        });
        match fault {
            Some(Fault::Denied) => return Err(CallError::Denied(call.clone())),
            Some(Fault::Empty) => return Err(CallError::Empty(call.clone())),
            Some(Fault::Exception(class, text)) => return Err(exception(call, class, text)),
            None => {}
        }
        if call.dest == "dom0" { self.system(call, payload) } else { self.about(call, arg, payload) }
    }

    fn system(&self, call: &CallName, payload: &[u8]) -> CallResult {
        let mut qubes = self.qubes.borrow_mut();
        match call.method.as_str() {
            "admin.vm.List" => Ok(qubes
                .iter()
                .map(|(name, q)| format!("{name} class={} state={}\n", q.class, q.state))
                .collect::<String>()
                .into_bytes()),
            "admin.vm.Create.TemplateVM" | "admin.vm.CreateInPool.TemplateVM" => {
                let text = String::from_utf8_lossy(payload).into_owned();
                let name = text.split(' ').find_map(|word| word.strip_prefix("name=")).unwrap_or_default();
                let qube =
                    FakeQube { class: "TemplateVM".into(), state: "Halted".into(), ..FakeQube::default() };
                match qubes.insert(name.to_owned(), qube) {
                    None => Ok(Vec::new()),
                    Some(old) => {
                        qubes.insert(name.to_owned(), old);
                        Err(exception(call, "QubesVMAlreadyExistsError", "Qube already exists"))
                    }
                }
            }
            "admin.pool.Info" => Ok(b"driver=lvm_thin\n".to_vec()),
            "admin.property.Get" => {
                let arg = call.arg.as_deref().unwrap_or_default();
                let set = qubes.get("dom0").and_then(|dom0| dom0.properties.get(arg));
                Ok(format!(
                    "default={} type=vm {}",
                    if set.is_some() { "False" } else { "True" },
                    set.map_or("", |v| v)
                )
                .into_bytes())
            }
            "admin.property.Set" => {
                let arg = call.arg.clone().unwrap_or_default();
                let text = String::from_utf8_lossy(payload).into_owned();
                qubes.entry("dom0".to_owned()).or_default().properties.insert(arg, text);
                Ok(Vec::new())
            }
            _ => Err(CallError::Empty(call.clone())),
        }
    }

    fn about(&self, call: &CallName, arg: &str, payload: &[u8]) -> CallResult {
        let mut qubes = self.qubes.borrow_mut();
        let text = String::from_utf8_lossy(payload).into_owned();
        let Some(qube) = qubes.get_mut(&call.dest) else { return Err(CallError::Empty(call.clone())) };
        match call.method.as_str() {
            "admin.vm.feature.Get" => match qube.features.get(arg) {
                Some(value) => Ok(value.clone().into_bytes()),
                None => Err(exception(call, "QubesFeatureNotFoundError", "Feature not set")),
            },
            "admin.vm.feature.List" => {
                Ok(qube.features.keys().map(|name| format!("{name}\n")).collect::<String>().into_bytes())
            }
            "admin.vm.feature.Set" => {
                qube.features.insert(arg.into(), text);
                Ok(Vec::new())
            }
            "admin.vm.feature.Remove" => match qube.features.remove(arg) {
                Some(_) => Ok(Vec::new()),
                None => Err(exception(call, "QubesFeatureNotFoundError", "Feature not set")),
            },
            "admin.vm.property.Get" => Ok(match qube.properties.get(arg) {
                Some(value) => format!("default=False type=str {value}"),
                None => "default=True type=str ".into(),
            }
            .into_bytes()),
            "admin.vm.property.Set" => {
                qube.properties.insert(arg.into(), text);
                Ok(Vec::new())
            }
            "admin.vm.property.Reset" => {
                qube.properties.remove(arg);
                Ok(Vec::new())
            }
            "admin.vm.volume.Clear" => {
                Self::commit(qube, arg, Vec::new());
                Ok(Vec::new())
            }
            "admin.vm.volume.Info" => Ok(b"pool=vm-pool\nsize=10\nusage=1\nrevisions_to_keep=2\n".to_vec()),
            "admin.vm.volume.ListSnapshots" => {
                let kept = qube.revisions.get(arg).into_iter().flatten();
                Ok(kept.map(|(id, _)| format!("{id}\n")).collect::<String>().into_bytes())
            }
            "admin.vm.volume.Revert" => {
                let mut kept = qube.revisions.get(arg).into_iter().flatten();
                let Some((_, content)) = kept.find(|(id, _)| *id == text).cloned() else {
                    return Err(CallError::Empty(call.clone()));
                };
                Self::commit(qube, arg, content);
                Ok(Vec::new())
            }
            "admin.vm.Start" => {
                qube.state = "Running".into();
                Ok(Vec::new())
            }
            "admin.vm.Shutdown" | "admin.vm.Kill" => {
                if qube.state == "Running" {
                    for volume in ["root", "private"] {
                        let content = qube.volumes.get(volume).cloned().unwrap_or_default();
                        Self::commit(qube, volume, content);
                    }
                }
                qube.state = "Halted".into();
                Ok(Vec::new())
            }
            "admin.vm.CurrentState" => Ok(format!("mem=0 power_state={}", qube.state).into_bytes()),
            "admin.vm.Remove" => {
                qubes.remove(&call.dest);
                Ok(Vec::new())
            }
            _ => Err(CallError::Empty(call.clone())),
        }
    }

    fn commit(qube: &mut FakeQube, volume: &str, content: Vec<u8>) {
        let old = qube.volumes.insert(volume.into(), content).unwrap_or_default();
        qube.commits += 1;
        let kept = qube.revisions.entry(volume.into()).or_default();
        kept.push((qube.commits.to_string(), old));
        if kept.len() > 2 {
            kept.remove(0);
        }
    }

    /// What the reader thread of an import got, judged as dom0's script judges it.
    fn imported(&self, call: &CallName, data: &[u8]) -> CallResult {
        let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
        let size: usize = String::from_utf8_lossy(&data[..end]).parse().unwrap_or(usize::MAX);
        let body = data.get(end + 1..).unwrap_or_default();
        self.answer(call, &data[..end.min(data.len())]).or_else(|e| match e {
            // The fake's table of methods does not know imports: no fault was found, so go on.
            CallError::Empty(_) if !self.faulty(call) => Ok(Vec::new()),
            other => Err(other),
        })?;
        if body.len() != size {
            return Err(exception(call, "QubesException", "Data import failed: not enough data"));
        }
        let mut qubes = self.qubes.borrow_mut();
        let Some(qube) = qubes.get_mut(&call.dest) else { return Err(CallError::Empty(call.clone())) };
        Self::commit(qube, call.arg.as_deref().unwrap_or(""), body.to_vec());
        Ok(Vec::new())
    }

    fn faulty(&self, call: &CallName) -> bool {
        self.faults.borrow().iter().any(|(method, _, _)| *method == call.method)
    }
}

fn exception(call: &CallName, class: &str, text: &str) -> CallError {
    CallError::Api { call: call.clone(), class: class.into(), message: text.into() }
}

/// A fake that imports can outlive, as they must be `'static`.
impl AdminApi for std::rc::Rc<FakeAdmin> {
    fn call<'a>(
        &'a self,
        dest: &'a str,
        method: &'a str,
        arg: Option<&'a str>,
        payload: &'a [u8],
    ) -> Pending<'a, CallResult> {
        Box::pin(async move { self.answer(&CallName::new(dest, method, arg), payload) })
    }

    fn import(&self, qube: &str, volume: &str) -> Result<Import, CallError> {
        let call = CallName::new(qube, "admin.vm.volume.ImportWithSize", Some(volume));
        let (mut read, input) = std::io::pipe().expect("a pipe");
        let fake = Self::clone(self);
        let reply = Box::pin(async move {
            let gather = tokio::task::spawn_blocking(move || {
                let mut data = Vec::new();
                read.read_to_end(&mut data).map(|_| data)
            });
            let data = gather.await.expect("a thread").expect("data");
            fake.imported(&call, &data)
        });
        Ok(Import { input, reply })
    }

    fn may_probe(&self) -> bool {
        false
    }
}
