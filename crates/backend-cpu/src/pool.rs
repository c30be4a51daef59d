//! The threads of a backend. One operation at a time is split into tasks; the calling thread works along.
//!
//! Which thread runs which task is left to chance: a task writes only places of its own, so results do not depend on
//! it. Idle threads spin for some microseconds, because the next operation of a step follows at once, then sleep.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Turns of waiting before a thread sleeps; some twenty microseconds.
const SPINS: usize = 400;

/// Threads that run the tasks of operations.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Held during an operation: tasks of one operation only.
    turn: Mutex<()>,
}

struct Shared {
    /// Grows by one with each operation; what idle threads watch.
    generation: AtomicU64,
    board: Mutex<Board>,
    wake: Condvar,
    done: Condvar,
}

/// What is posted for the workers.
struct Board {
    job: Option<Arc<Job>>,
    generation: u64,
    sleepers: usize,
    stop: bool,
}

struct Job {
    task: Task,
    count: usize,
    next: AtomicUsize,
    finished: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The closure of an operation, its lifetime set aside.
struct Task(*const (dyn Fn(usize) + Sync));

// SAFETY: the closure is Sync, so a reference to it may be used on any thread; `Pool::run` keeps it alive while used.
#[allow(unsafe_code)]
unsafe impl Send for Task {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Task {}

impl Job {
    /// Runs tasks until none is left to start. True where this call finished the last one.
    fn work(&self) -> bool {
        let mut last = false;
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if index >= self.count {
                return last;
            }
            // SAFETY: `index < count`, so the job is not finished and `Pool::run` has not returned: the closure lives.
            #[allow(unsafe_code)]
            let task = unsafe { &*self.task.0 };
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| task(index))) {
                lock(&self.panic).get_or_insert(payload);
            }
            last = self.finished.fetch_add(1, Ordering::AcqRel) + 1 == self.count;
        }
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire) == self.count
    }
}

impl Pool {
    /// A pool of `threads`, the calling one among them. Threads that the system refuses are done without.
    pub(crate) fn new(threads: NonZeroUsize) -> Self {
        let shared = Arc::new(Shared {
            generation: AtomicU64::new(0),
            board: Mutex::new(Board { job: None, generation: 0, sleepers: 0, stop: false }),
            wake: Condvar::new(),
            done: Condvar::new(),
        });
        let workers = (1..threads.get())
            .map_while(|index| {
                let shared = Arc::clone(&shared);
                let builder = std::thread::Builder::new().name(format!("cpu-{index}"));
                builder.spawn(move || shared.serve()).ok()
            })
            .collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// Threads at work, the caller's included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task(0)` to `task(count - 1)`, in any order and at the same time, and returns when all are done. A panic
    /// of a task goes on in the caller once the others are done.
    pub(crate) fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        if count <= 1 || self.workers.is_empty() {
            (0..count).for_each(task);
            return;
        }
        let _turn = lock(&self.turn);
        // SAFETY: only the lifetime changes. The reference is followed for tasks not yet finished alone, and this
        // function returns after the last has finished.
        #[allow(unsafe_code)]
        let task = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(task) };
        let job = Arc::new(Job {
            task: Task(task),
            count,
            next: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            panic: Mutex::new(None),
        });
        {
            let mut board = lock(&self.shared.board);
            board.job = Some(Arc::clone(&job));
            board.generation += 1;
            self.shared.generation.store(board.generation, Ordering::Release);
            if board.sleepers > 0 {
                self.shared.wake.notify_all();
            }
        }
        if !job.work() {
            self.wait(&job);
        }
        let payload = lock(&job.panic).take();
        if let Some(payload) = payload {
            resume_unwind(payload);
        }
    }

    fn wait(&self, job: &Job) {
        for _ in 0..SPINS {
            if job.is_finished() {
                return;
            }
            std::hint::spin_loop();
        }
        let mut board = lock(&self.shared.board);
        while !job.is_finished() {
            board = self.shared.done.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.board).stop = true;
        self.shared.generation.fetch_add(1, Ordering::Release);
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its tasks, so there is nothing to learn from its end.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// The life of a worker.
    fn serve(&self) {
        let mut seen = 0;
        while let Some((job, generation)) = self.next_job(seen) {
            seen = generation;
            if job.is_some_and(|job| job.work()) {
                // Under the lock, so that the caller cannot fall asleep between its check and its wait.
                let _board = lock(&self.board);
                self.done.notify_all();
            }
        }
    }

    /// Waits for a generation after `seen`; `None` when the pool is dropped.
    fn next_job(&self, seen: u64) -> Option<(Option<Arc<Job>>, u64)> {
        for _ in 0..SPINS {
            if self.generation.load(Ordering::Acquire) != seen {
                break;
            }
            std::hint::spin_loop();
        }
        let mut board = lock(&self.board);
        while board.generation == seen && !board.stop {
            board.sleepers += 1;
            board = self.wake.wait(board).unwrap_or_else(PoisonError::into_inner);
            board.sleepers -= 1;
        }
        if board.stop { None } else { Some((board.job.clone(), board.generation)) }
    }
}

/// No lock here is held while foreign code runs, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).unwrap())
    }

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let pool = pool(threads);
            for count in [0, 1, 2, 3, 64, 1000] {
                let runs: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                pool.run(count, &|index| {
                    runs[index].fetch_add(1, Ordering::Relaxed);
                });
                assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{threads} threads, {count} tasks");
            }
        }
    }

    #[test]
    fn a_panic_of_a_task_reaches_the_caller_and_the_pool_works_on() {
        let pool = pool(3);
        for _ in 0..50 {
            let caught = catch_unwind(AssertUnwindSafe(|| pool.run(16, &|index| assert_ne!(index, 7, "task 7"))));
            assert!(caught.is_err());
            let sum = AtomicUsize::new(0);
            pool.run(16, &|index| {
                sum.fetch_add(index, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 120);
        }
    }

    #[test]
    fn many_short_operations_follow_each_other() {
        let pool = pool(4);
        let sum = AtomicUsize::new(0);
        for _ in 0..10_000 {
            pool.run(4, &|_| {
                sum.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 40_000);
    }
}
