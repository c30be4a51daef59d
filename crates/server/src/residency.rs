//! Which models are loaded: mounted when a request first names them, kept for a while after their last answer, and
//! unloaded when their time is up or when they are told to go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use mlxctl_api::KeepAlive;
use mlxctl_artifact::Digest;
use mlxctl_engine::Engine;
use tokio::sync::{Notify, OnceCell};
use tokio::time::Instant;

use crate::Error;
use crate::catalogue::{Catalogue, Found};
use crate::model::{LoadedModel, MountOptions};

/// How long a model stays after its last answer where nobody says.
const DEFAULT_KEEP_ALIVE: Duration = Duration::from_mins(5);

/// The loaded models.
pub(crate) struct Residency {
    engine: Arc<Engine>,
    options: MountOptions,
    slots: Mutex<HashMap<Digest, Arc<Slot>>>,
    /// Wakes the reaper: a time has changed.
    changed: Notify,
}

struct Slot {
    name: String,
    model: OnceCell<Arc<LoadedModel>>,
    state: Mutex<State>,
}

struct State {
    /// Requests that hold the model.
    users: usize,
    keep_alive: KeepAlive,
    /// When it goes; never, where there is none.
    expires: Option<Instant>,
}

/// A loaded model as lists show it.
pub(crate) struct Resident {
    pub(crate) name: String,
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) expires: Option<SystemTime>,
}

/// A model in use; its time runs from when this is dropped.
pub(crate) struct InUse {
    model: Arc<LoadedModel>,
    slot: Arc<Slot>,
    residency: Arc<Residency>,
    /// What loading took, where this request had to wait for it.
    pub(crate) load_time: Duration,
}

impl std::ops::Deref for InUse {
    type Target = LoadedModel;

    fn deref(&self) -> &LoadedModel {
        &self.model
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.slot.lock();
        state.users -= 1;
        if state.users == 0 {
            state.restart();
            drop(state);
            self.residency.changed.notify_one();
        }
    }
}

impl Slot {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn restart(&mut self) {
        self.expires = match self.keep_alive {
            KeepAlive::Forever => None,
            KeepAlive::For(duration) => Instant::now().checked_add(duration),
        };
    }
}

impl Residency {
    pub(crate) fn new(engine: Arc<Engine>, options: MountOptions) -> Self {
        Self { engine, options, slots: Mutex::default(), changed: Notify::new() }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model, loaded. Requests that come while it loads wait for the same loading. `keep_alive` replaces what was
    /// said of the model before.
    pub(crate) async fn hold(
        self: &Arc<Self>,
        catalogue: &Arc<Catalogue>,
        found: &Found,
        keep_alive: Option<KeepAlive>,
    ) -> Result<InUse, Error> {
        let slot = {
            let mut slots = self.slots();
            // A model that its engine has given up is loaded anew.
            if slots
                .get(&found.digest)
                .is_some_and(|slot| slot.model.get().is_some_and(|m| m.engine.stopped().is_some()))
            {
                slots.remove(&found.digest);
            }
            let slot = slots.entry(found.digest).or_insert_with(|| {
                let state = State { users: 0, keep_alive: KeepAlive::For(DEFAULT_KEEP_ALIVE), expires: None };
                Arc::new(Slot { name: found.name.clone(), model: OnceCell::new(), state: Mutex::new(state) })
            });
            slot.lock().users += 1;
            slot.clone()
        };
        // From here on the count goes down again whatever happens.
        let counted = Counted(Some((slot.clone(), self.clone())));
        let mut load_time = Duration::ZERO;
        let model = slot
            .model
            .get_or_try_init(|| async {
                let started = Instant::now();
                let (engine, options, catalogue, found) =
                    (self.engine.clone(), self.options.clone(), catalogue.clone(), found.clone());
                let loaded = tokio::task::spawn_blocking(move || {
                    let files = catalogue.files(&found)?;
                    LoadedModel::mount(&engine, &files, catalogue.store(), &options)
                })
                .await
                .map_err(|error| Error::Internal { what: "loading a model", reason: error.to_string() })??;
                load_time = started.elapsed();
                tracing::info!(model = loaded.name, digest = %loaded.digest, ms = load_time.as_millis(), "mounted");
                Ok::<_, Error>(Arc::new(loaded))
            })
            .await?
            .clone();
        if let Some(keep_alive) = keep_alive {
            slot.lock().keep_alive = keep_alive;
        }
        counted.keep();
        Ok(InUse { model, slot, residency: self.clone(), load_time })
    }

    /// Unloads a model once the requests it has taken are done; whether it was loaded.
    pub(crate) fn unload(&self, digest: &Digest) -> bool {
        self.slots().remove(digest).is_some()
    }

    /// The loaded models, by name.
    pub(crate) fn list(&self) -> Vec<Resident> {
        let slots: Vec<Arc<Slot>> = self.slots().values().cloned().collect();
        let now = (Instant::now(), SystemTime::now());
        let mut residents: Vec<Resident> = slots
            .iter()
            .filter_map(|slot| {
                let model = slot.model.get()?.clone();
                let state = slot.lock();
                let expires = match (state.users, state.keep_alive) {
                    (_, KeepAlive::Forever) => None,
                    (0, KeepAlive::For(_)) => state.expires.map(|at| now.1 + at.saturating_duration_since(now.0)),
                    (_, KeepAlive::For(duration)) => Some(now.1 + duration),
                };
                Some(Resident { name: slot.name.clone(), model, expires })
            })
            .collect();
        residents.sort_by(|one, other| one.name.cmp(&other.name));
        residents
    }

    /// Unloads models whose time is up, for as long as the daemon runs.
    pub(crate) async fn reap(self: Arc<Self>) {
        loop {
            let next = self.reap_once();
            let changed = self.changed.notified();
            match next {
                Some(at) => tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    /// Unloads what is due and says when the next model will be.
    fn reap_once(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut next = None;
        let mut due = Vec::new();
        self.slots().retain(|_, slot| {
            let state = slot.lock();
            let Some(expires) = state.expires.filter(|_| state.users == 0) else { return true };
            if expires > now {
                next = Some(next.map_or(expires, |other: Instant| other.min(expires)));
                return true;
            }
            drop(state);
            due.push(slot.clone());
            false
        });
        for slot in due {
            tracing::info!(model = slot.name, "unloaded");
        }
        next
    }
}

/// Takes a count back unless the model was handed out.
struct Counted(Option<(Arc<Slot>, Arc<Residency>)>);

impl Counted {
    /// The count is an [`InUse`]'s now.
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Some((slot, residency)) = self.0.take() else { return };
        slot.lock().users -= 1;
        // Nothing was loaded: the name must not stay as if something had been.
        residency
            .slots()
            .retain(|_, other| !Arc::ptr_eq(other, &slot) || slot.model.initialized() || slot.lock().users > 0);
    }
}
