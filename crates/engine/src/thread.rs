//! The thread that owns a device: it takes commands in, and lets each mounted model with work make a step in turn.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use mlxctl_backend::Backend;
use mlxctl_models::Model;

use crate::handle::Submission;
use crate::mounted::{Mounted, words};
use crate::{EngineHandle, EngineOptions, MountError};

/// A model of this engine; never used twice.
pub(crate) type ModelId = u64;

/// What the thread is told.
pub(crate) enum Command {
    /// Build a model here, for what it is made of may not leave the thread.
    Mount(Box<dyn FnOnce(&mut Models) + Send>),
    Submit(ModelId, Box<Submission>),
    Unmount(ModelId),
    Stop,
}

/// A mounted model, whatever its backend.
pub(crate) trait Served {
    fn take(&mut self, submission: Submission);
    /// Makes one step; false where there is nothing to do. May panic.
    fn step(&mut self) -> bool;
    /// After a panic in a step: ends what took part in it, and loads the model anew.
    fn recover(&mut self, reason: &str);
    fn is_idle(&self) -> bool;
    /// Ends everything.
    fn end(&mut self);
}

/// The models of a thread.
#[derive(Default)]
pub(crate) struct Models {
    next: ModelId,
    mounted: BTreeMap<ModelId, Entry>,
}

struct Entry {
    served: Box<dyn Served>,
    /// No handle is left; it goes when its requests are done.
    leaving: bool,
}

/// A device's thread. Dropping it leaves the thread to its models: it ends when the last of them is unmounted.
#[derive(Debug)]
pub struct Engine {
    name: String,
    commands: Sender<Command>,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Starts a thread of this name.
    pub fn start(name: &str) -> Result<Self, MountError> {
        let (commands, receiver) = channel();
        let thread =
            std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&receiver)).map_err(|error| {
                MountError::Thread { name: name.to_owned(), reason: format!("could not be started: {error}") }
            })?;
        Ok(Self { name: name.to_owned(), commands, thread })
    }

    /// Mounts a model; waits until it is there. `factory` runs on the engine thread, now and whenever the model has
    /// to be loaded anew after a failure.
    pub fn mount<B, E, F>(&self, factory: F, options: EngineOptions) -> Result<EngineHandle, MountError>
    where
        B: Backend,
        E: std::fmt::Display,
        F: Fn() -> Result<(B, Box<dyn Model<B>>), E> + Send + 'static,
    {
        let (answer, answered) = channel();
        let commands = self.commands.clone();
        let mount = move |models: &mut Models| {
            let mounted = catch_unwind(AssertUnwindSafe(|| Mounted::new(factory, options)))
                .unwrap_or_else(|panic| Err(MountError::Load { message: words(&*panic) }));
            let handle = mounted.map(|mounted| {
                let id = models.next;
                models.next += 1;
                let handle = EngineHandle::new(id, commands, mounted.shared(), mounted.facts().clone());
                models.mounted.insert(id, Entry { served: Box::new(mounted), leaving: false });
                handle
            });
            // Who asked may have gone; then the handle goes with the answer, and unmounts the model.
            let _ = answer.send(handle);
        };
        let gone = || MountError::Thread { name: self.name.clone(), reason: "is gone".to_owned() };
        self.commands.send(Command::Mount(Box::new(mount))).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }

    /// Ends all requests, unmounts all models and waits for the thread's end.
    pub fn stop(self) {
        // A thread that is gone has stopped.
        let _ = self.commands.send(Command::Stop);
        let _ = self.thread.join();
    }
}

fn run(commands: &Receiver<Command>) {
    let mut models = Models::default();
    loop {
        let busy = models.step();
        models.leave();
        // With work at hand only what is there is taken in; without, the thread sleeps until something comes.
        let mut first = !busy;
        loop {
            let command = if first {
                match commands.recv() {
                    Ok(command) => command,
                    Err(_) => return models.end(),
                }
            } else {
                match commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return models.end(),
                }
            };
            first = false;
            match command {
                Command::Mount(mount) => mount(&mut models),
                Command::Submit(id, submission) => {
                    // Handles outlive their model only where it failed, and then it stays to say so.
                    if let Some(entry) = models.mounted.get_mut(&id) {
                        entry.served.take(*submission);
                    }
                }
                Command::Unmount(id) => {
                    if let Some(entry) = models.mounted.get_mut(&id) {
                        entry.leaving = true;
                    }
                }
                Command::Stop => return models.end(),
            }
        }
    }
}

impl Models {
    /// One step of every model that has work; false where none has.
    fn step(&mut self) -> bool {
        let mut busy = false;
        for entry in self.mounted.values_mut() {
            match catch_unwind(AssertUnwindSafe(|| entry.served.step())) {
                Ok(worked) => busy |= worked,
                Err(panic) => {
                    busy = true;
                    let reason = words(&*panic);
                    tracing::error!(%reason, "a step panicked; the model is loaded anew");
                    entry.served.recover(&reason);
                }
            }
        }
        busy
    }

    fn leave(&mut self) {
        let done: Vec<ModelId> =
            self.mounted.iter().filter(|(_, e)| e.leaving && e.served.is_idle()).map(|(id, _)| *id).collect();
        for id in done {
            if let Some(entry) = self.mounted.remove(&id) {
                dismantle(entry);
            }
        }
    }

    fn end(&mut self) {
        for (_, mut entry) in std::mem::take(&mut self.mounted) {
            entry.served.end();
            dismantle(entry);
        }
    }
}

/// A device may fail while it gives back what it holds; nobody is left to hear of it but the log.
fn dismantle(entry: Entry) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(entry))) {
        tracing::error!(reason = %words(&*panic), "unmounting a model panicked");
    }
}
