//! Copies of disks that are put in their place later.

use std::path::Path;

use sluice_host::clock::UnixMillis;
use sluice_host::fleet;
use sluice_host::store;
use sluice_protocol::ending::State;

use super::Fleet;

impl Fleet {
    /// Copies what the host, which does not run, has on disk.
    pub fn back_up(&self) {
        self.copy_database(&self.data(), &self.folder.path().join("copy"));
    }

    /// Puts that copy in its place. The host does not run.
    pub fn restore(&mut self) {
        self.copy_database(&self.folder.path().join("copy"), &self.data());
        self.restored = true;
        self.ended.clear();
    }

    fn copy_database(&self, from: &Path, to: &Path) {
        assert!(!self.host_is_up());
        std::fs::create_dir_all(to).expect("makes a folder");
        for end in ["host.db", "host.db-wal", "host.db-shm"] {
            let _none = std::fs::remove_file(to.join(end));
            if from.join(end).exists() {
                std::fs::copy(from.join(end), to.join(end)).expect("copies");
            }
        }
    }

    /// Takes an image of a machine, whose agent does not run.
    pub fn take_image(&self, number: usize) {
        assert!(!self.agent_is_up(number));
        let image = self.image_of(number);
        let _none = std::fs::remove_dir_all(&image);
        copy(&self.state_of(number), &image);
    }

    /// Puts that image in place. The host runs and has heard all that it will; the agent does not run, and no process of a
    /// script is left, as on a computer that was switched off.
    pub fn put_image_back(&mut self, number: usize) {
        assert!(!self.agent_is_up(number));
        self.scripts.kill_all();
        let runs = self.scripts.runs();
        let machine = self.machines[number].machine;
        for row in self.operations() {
            let is_heard_of = row.state == State::Running || row.state.is_terminal();
            if row.machine == Some(machine) && runs.contains_key(&row.id) && !is_heard_of {
                self.may_start_again.insert(row.id);
            }
        }
        let state = self.state_of(number);
        std::fs::remove_dir_all(&state).expect("removes");
        copy(&self.image_of(number), &state);
        self.machines[number].rolled_back = true;
    }

    /// Why a machine is quarantined, if it is.
    #[must_use]
    pub fn quarantine(&self, number: usize) -> Option<String> {
        let (tenant, machine) = (self.actor.tenant.id, self.machines[number].machine);
        let store = &self.server().host().store;
        let known = store.read(|conn| store::history::find(conn, tenant, machine));
        let known = known.expect("reads").expect("is there");
        known.quarantine.map(|quarantine| quarantine.reason)
    }

    /// Releases a machine that is quarantined, as an operator does.
    pub fn release(&self, number: usize) {
        let (host, actor) = (self.server().host().clone(), self.actor.clone());
        let name = self.machines[number].name.clone();
        self.world.run(self.host, async move {
            let released = fleet::release(&host, &actor, &name, UnixMillis::now());
            released.await.expect("is quarantined");
        });
    }

    fn state_of(&self, number: usize) -> std::path::PathBuf {
        self.folder.path().join(&self.machines[number].name)
    }

    fn image_of(&self, number: usize) -> std::path::PathBuf {
        let name = format!("{}.image", self.machines[number].name);
        self.folder.path().join(name)
    }
}

/// Copies a folder, with the modes of what is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("makes a folder");
    let modes = std::fs::metadata(from).expect("is there").permissions();
    std::fs::set_permissions(to, modes).expect("changes the mode");
    for entry in std::fs::read_dir(from).expect("reads") {
        let entry = entry.expect("reads");
        let place = to.join(entry.file_name());
        if entry.file_type().expect("is known").is_dir() {
            copy(&entry.path(), &place);
        } else {
            std::fs::copy(entry.path(), place).expect("copies");
        }
    }
}
