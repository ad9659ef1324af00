//! `calico-azure load`: programs on interfaces, without an agent.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{OK, Outcome, object};
use crate::dataplane::attach::{Attachments, Mode, Role, detach_clsact};
use crate::dataplane::kernel::{Kernel, KernelError, Sizes, is_root};
use crate::dataplane::pins::Pins;
use crate::sources::links::snapshot;

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Pods' host-side interfaces. Until an agent gives them policy, their pods' traffic is dropped.
    #[arg(long, required_unless_present = "fabric", value_delimiter = ',', num_args = 1..)]
    interface: Vec<String>,
    /// Interfaces to the fabric.
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    fabric: Vec<String>,
    /// How programs are attached.
    #[arg(long, value_enum, default_value_t)]
    attach: Mode,
    /// Take the programs off again.
    #[arg(long)]
    detach: bool,
    /// A mounted bpf file system.
    #[arg(long, default_value = "/sys/fs/bpf", value_name = "DIR")]
    bpffs: PathBuf,
    /// Name of the pin directory.
    #[arg(long, default_value = "manual", value_name = "NAME")]
    pin_name: String,
    /// An eBPF object instead of the one in this binary.
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
}

impl LoadArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        if !is_root() {
            return Err(Box::new(KernelError::NotPermitted));
        }
        let links = snapshot()?.links;
        let mut wanted = Vec::new();
        let roles = [(&self.interface, Role::Workload), (&self.fabric, Role::Fabric)];
        for (name, role) in roles
            .iter()
            .flat_map(|(names, role)| names.iter().map(move |name| (name, *role)))
        {
            let found = links.iter().find(|(_, link)| link.name == *name);
            let Some((ifindex, _)) = found else {
                let known: Vec<_> = links.values().map(|link| link.name.as_str()).collect();
                return Err(format!(
                    "interface {name} does not exist here; there are: {}",
                    known.join(", ")
                )
                .into());
            };
            wanted.push((*ifindex, name.clone(), role));
        }
        let pins = Pins::new(&self.bpffs, &self.pin_name)?;
        if self.detach {
            detach(&pins, &wanted, out)
        } else {
            self.load(pins, &wanted, out)
        }
    }

    fn load(&self, pins: Pins, wanted: &[(u32, String, Role)], out: &mut dyn Write) -> Outcome {
        let how = self.attach.resolve();
        let mut kernel = Kernel::load(
            &object::read(self.object.as_deref())?,
            Some(pins),
            Sizes::default(),
        )?;
        let mut attachments = Attachments::default();
        for (ifindex, name, role) in wanted {
            attachments.attach(&mut kernel, name, *ifindex, *role, how)?;
        }
        writeln!(
            out,
            "{:<16} {:<14} {:<8} {:<7} PIN",
            "INTERFACE", "PROGRAM", "HOOK", "HOW"
        )?;
        for attached in attachments.iter() {
            let pin = kernel
                .pins()
                .map(|pins| pins.link(attached.ifindex, attached.program));
            // A filter cannot be pinned: the kernel keeps it with the interface.
            let pin = pin
                .filter(|pin| pin.exists())
                .map_or("-".into(), |pin| pin.display().to_string());
            let (interface, program, hook) = (&attached.interface, attached.program, attached.hook);
            writeln!(
                out,
                "{interface:<16} {program:<14} {hook:<8} {:<7} {pin}",
                attached.how.to_string()
            )?;
        }
        if let Some(pins) = kernel.pins() {
            writeln!(out, "maps are pinned in {}", pins.maps().display())?;
        }
        writeln!(
            out,
            "no policy is loaded: pods behind these interfaces are cut off until an agent gives them theirs"
        )?;
        Ok(OK)
    }
}

fn detach(pins: &Pins, wanted: &[(u32, String, Role)], out: &mut dyn Write) -> Outcome {
    for (ifindex, name, role) in wanted {
        let mut removed = detach_clsact(name)?;
        for (program, _) in role.programs() {
            removed += usize::from(std::fs::remove_file(pins.link(*ifindex, program)).is_ok());
        }
        writeln!(out, "{name}: {removed} program(s) detached")?;
    }
    if pins.pinned_links()?.is_empty() {
        for dir in pins.remove()? {
            writeln!(out, "removed {}", dir.display())?;
        }
    }
    Ok(OK)
}
