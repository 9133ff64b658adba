//! From a method's name to what it does.
//!
//! Each method says whether it wants an argument, a payload, and the system as its destination; that is checked before
//! it runs, in this order: payload, argument, destination.

use super::call::{Answer, Call};
use super::name::decode_qube;
use super::state::State;
use super::{Destination, Failure, Qubesd, Reply, Request};
use super::{create, features, life, pools, properties, qubes, tags, volumes};

#[derive(Clone, Copy, PartialEq)]
enum Need {
    Yes,
    No,
    Any,
}

#[derive(Clone, Copy)]
enum Run {
    /// Has the state for itself.
    Alone(fn(&mut State, &Call) -> Answer),
    /// Waits for qubes.
    Waiting(fn(&Qubesd, &Call) -> Answer),
    /// Stays open.
    Listening,
}

struct Method {
    name: &'static str,
    arg: Need,
    payload: Need,
    /// Whether only the system can be its destination.
    system: bool,
    run: Run,
}

const fn on_qube(
    name: &'static str,
    arg: Need,
    payload: Need,
    run: fn(&mut State, &Call) -> Answer,
) -> Method {
    Method { name, arg, payload, system: false, run: Run::Alone(run) }
}

const fn on_system(
    name: &'static str,
    arg: Need,
    payload: Need,
    run: fn(&mut State, &Call) -> Answer,
) -> Method {
    Method { name, arg, payload, system: true, run: Run::Alone(run) }
}

const fn waiting(name: &'static str, arg: Need, run: fn(&Qubesd, &Call) -> Answer) -> Method {
    Method { name, arg, payload: Need::No, system: false, run: Run::Waiting(run) }
}

use Need::{Any, No, Yes};

const METHODS: &[Method] = &[
    on_system("admin.vmclass.List", No, No, qubes::classes),
    on_qube("admin.vm.List", No, No, qubes::list),
    on_qube("admin.vm.Remove", No, No, qubes::remove),
    on_qube("admin.vm.CurrentState", No, No, qubes::current_state),
    on_system("admin.vm.Create.", Any, Any, create::create),
    on_system("admin.vm.CreateInPool.", Any, Any, create::create_in_pool),
    waiting("admin.vm.Start", No, life::start_call),
    waiting("admin.vm.Shutdown", Any, life::shutdown_call),
    waiting("admin.vm.Kill", No, life::kill_call),
    on_qube("admin.vm.Pause", No, No, life::pause),
    on_qube("admin.vm.Unpause", No, No, life::unpause),
    on_qube("admin.vm.Suspend", No, No, life::suspend),
    on_qube("admin.vm.Resume", No, No, life::resume),
    on_qube("admin.vm.property.List", No, No, properties::list),
    on_qube("admin.vm.property.Get", Yes, No, properties::get),
    on_qube("admin.vm.property.GetAll", No, No, properties::get_all),
    on_qube("admin.vm.property.GetDefault", Yes, No, properties::get_default),
    on_qube("admin.vm.property.Set", Yes, Any, properties::set),
    on_qube("admin.vm.property.Reset", Yes, No, properties::reset),
    on_system("admin.property.List", No, No, properties::list),
    on_system("admin.property.Get", Yes, No, properties::get),
    on_system("admin.property.GetAll", No, No, properties::get_all),
    on_system("admin.property.GetDefault", Yes, No, properties::get_default),
    on_system("admin.property.Set", Yes, Any, properties::set),
    on_system("admin.property.Reset", Yes, No, properties::reset),
    on_qube("admin.vm.feature.List", No, No, features::list),
    on_qube("admin.vm.feature.Get", Yes, No, features::get),
    on_qube("admin.vm.feature.CheckWithTemplate", Yes, No, features::check),
    on_qube("admin.vm.feature.CheckWithNetvm", Yes, No, features::check),
    on_qube("admin.vm.feature.CheckWithAdminVM", Yes, No, features::check),
    on_qube("admin.vm.feature.CheckWithTemplateAndAdminVM", Yes, No, features::check),
    on_qube("admin.vm.feature.Set", Yes, Any, features::set),
    on_qube("admin.vm.feature.Remove", Yes, No, features::remove),
    on_qube("admin.vm.tag.List", No, No, tags::list),
    on_qube("admin.vm.tag.Get", Yes, No, tags::get),
    on_qube("admin.vm.tag.Set", Yes, No, tags::set),
    on_qube("admin.vm.tag.Remove", Yes, No, tags::remove),
    on_qube("admin.vm.volume.List", No, No, volumes::list),
    on_qube("admin.vm.volume.Info", Yes, No, volumes::info),
    on_qube("admin.vm.volume.ListSnapshots", Yes, No, volumes::list_snapshots),
    on_qube("admin.vm.volume.Revert", Yes, Yes, volumes::revert),
    on_qube("admin.vm.volume.Resize", Yes, Yes, volumes::resize),
    on_qube("admin.vm.volume.Clear", Yes, No, volumes::clear),
    on_qube("admin.vm.volume.Set.revisions_to_keep", Yes, Yes, volumes::set_revisions_to_keep),
    on_qube("admin.vm.volume.Set.rw", Yes, Yes, volumes::set_rw),
    on_qube("admin.vm.volume.Set.ephemeral", Yes, Yes, volumes::set_ephemeral),
    on_qube("admin.vm.volume.CloneFrom", Yes, No, volumes::clone_from),
    on_qube("admin.vm.volume.CloneTo", Yes, Yes, volumes::clone_to),
    on_system("admin.pool.List", No, No, pools::list),
    on_system("admin.pool.ListDrivers", No, No, pools::drivers),
    on_system("admin.pool.Set.revisions_to_keep", Yes, Yes, pools::set_revisions_to_keep),
    on_system("admin.pool.Set.ephemeral_volatile", Yes, Yes, pools::set_ephemeral_volatile),
    on_system("admin.deviceclass.List", No, No, pools::device_classes),
    on_system("admin.pool.Info", Yes, No, pools::info),
    on_system("admin.pool.UsageDetails", Yes, No, pools::usage_details),
    on_system("admin.pool.volume.List", Yes, No, pools::volumes),
    on_system("admin.label.List", No, No, pools::labels),
    on_system("admin.label.Get", Yes, No, pools::label_color),
    on_system("admin.label.Index", Yes, No, pools::label_index),
    on_system("admin.label.Create", Yes, Yes, pools::label_create),
    on_system("admin.label.Remove", Yes, No, pools::label_remove),
    Method { name: "admin.Events", arg: No, payload: No, system: false, run: Run::Listening },
];

/// Whether there is such a method: those whose name ends in a dot have a class of qubes behind it.
pub(super) fn has_method(name: &str) -> bool {
    method(name).is_some()
}

fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| match name.strip_prefix(method.name) {
        Some("") => !method.name.ends_with('.'),
        Some(class) => method.name.ends_with('.') && super::super::state::Class::parse(class).is_some(),
        None => false,
    })
}

/// Runs the method that a request names.
pub(super) fn answer(server: &Qubesd, request: &Request) -> Result<Reply, Failure> {
    let (call, method) = {
        let state = server.lock();
        let source = decode_qube(&state, &request.source)?;
        let dest = match &request.dest {
            Destination::Name(name) => decode_qube(&state, name)?,
            // The only keyword that comes this far.
            Destination::Keyword(_) => "dom0".to_owned(),
        };
        if !request.arg.is_ascii() {
            return Err(Failure::Untold);
        }
        let method = method(&request.method)
            .ok_or_else(|| Failure::protocol(format_args!("no such method: '{}'", request.method)))?;
        let call = Call {
            source,
            dest,
            method: request.method.clone(),
            arg: request.arg.clone(),
            payload: request.payload.clone(),
        };
        check(method, &call)?;
        if let Some(rule) =
            state.system.fail.iter().find(|rule| rule.fits(&call.method, &call.arg, &call.dest))
            && let Some((class, text)) = &rule.error
        {
            return Err(Failure::new(class, text));
        }
        (call, method)
    };
    let answer = match method.run {
        Run::Alone(run) => {
            let mut state = server.lock();
            let answer = run(&mut state, &call);
            // A client is not told of a full disk in dom0.
            server.save(&mut state).map_err(|_| Failure::Untold)?;
            answer?
        }
        Run::Waiting(run) => run(server, &call)?,
        Run::Listening => {
            let about = (call.dest != "dom0").then_some(call.dest.as_str());
            return Ok(Reply::Events(server.lock().events.listen(&call.source, about)));
        }
    };
    Ok(Reply::ok(&answer))
}

fn check(method: &Method, call: &Call) -> Result<(), Failure> {
    match (method.payload, call.payload.is_empty()) {
        (Yes, true) => return Err(Failure::protocol("expected payload")),
        (No, false) => return Err(Failure::protocol("unexpected payload")),
        _ => {}
    }
    match (method.arg, call.arg.is_empty()) {
        (Yes, true) => return Err(Failure::protocol("expected an argument")),
        (No, false) => return Err(Failure::protocol("unexpected argument")),
        _ => {}
    }
    if method.system && call.dest != "dom0" {
        return Err(Failure::protocol("expected destination to be AdminVM"));
    }
    Ok(())
}
