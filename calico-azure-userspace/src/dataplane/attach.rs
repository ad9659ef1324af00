//! Programs on interfaces: tcx with pinned links where the kernel has it, clsact filters otherwise.
//!
//! Both survive the agent. A new agent replaces the program of a pinned link atomically, and replaces a filter in
//! place by its priority and handle, so there is no moment without a program.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle};
use aya::programs::xdp::XdpLink;
use aya::programs::{LinkOrder, ProgramError, TcAttachType, XdpMode, tc};
use aya::sys::SyscallError;
use aya::util::KernelVersion;
use calico_azure_ebpf::abi::program;

use super::kernel::{Kernel, KernelError};
use super::pins::PinError;

/// Priority of our clsact filters. Unusual on purpose: what has it, with our handle and name, is ours.
pub const FILTER_PRIORITY: u16 = 0xca1;
/// Handle of our clsact filters.
pub const FILTER_HANDLE: TcHandle = TcHandle::new(0, 0xca1);

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// A pinned tcx link (kernel 6.6, commit e420bed02507).
    Tcx,
    /// A filter of the clsact qdisc.
    Clsact,
    /// A pinned XDP link (kernel 5.9, commit aa8d3a716b59).
    Xdp,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
        })
    }
}

/// How to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// tcx from kernel 6.6 on, else clsact.
    #[default]
    Auto,
    /// tcx, or fail.
    Tcx,
    /// clsact even where there is tcx.
    Clsact,
}

impl Mode {
    /// The choice on this kernel.
    #[must_use]
    pub fn resolve(self) -> How {
        match self {
            Self::Tcx => How::Tcx,
            Self::Clsact => How::Clsact,
            Self::Auto => match KernelVersion::current() {
                Ok(version) if version >= KernelVersion::new(6, 6, 0) => How::Tcx,
                _ => How::Clsact,
            },
        }
    }
}

/// What an interface is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A pod's host-side interface.
    Workload,
    /// The NIC, or the VXLAN device over it.
    Fabric,
}

impl Role {
    /// Its programs, egress first: a pod that cannot be reached yet is safer than one that can speak already.
    #[must_use]
    pub fn programs(self) -> [(&'static str, TcAttachType); 2] {
        match self {
            Self::Workload => [
                (program::TO_WORKLOAD, TcAttachType::Egress),
                (program::FROM_WORKLOAD, TcAttachType::Ingress),
            ],
            Self::Fabric => [
                (program::TO_FABRIC, TcAttachType::Egress),
                (program::FROM_FABRIC, TcAttachType::Ingress),
            ],
        }
    }
}

/// One program on one interface.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Attached {
    pub interface: String,
    pub ifindex: u32,
    pub program: &'static str,
    /// `ingress`, `egress` or `xdp`.
    pub hook: &'static str,
    pub how: How,
}

/// A program could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("interface {0} does not exist here: `ip link` lists those of this network namespace")]
    NoInterface(String),
    #[error("{0}")]
    Kernel(#[from] KernelError),
    #[error("{0}")]
    Pin(#[from] PinError),
    #[error("cannot attach {program} to {interface} ({how}): {source}")]
    Attach {
        interface: String,
        program: &'static str,
        how: How,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "cannot attach to_host to the control group {path}: {source}; --host-cgroup names the root of the unified hierarchy, \
         or `none`"
    )]
    Cgroup {
        path: std::path::PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot detach from {interface}: {source}")]
    Detach {
        interface: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl AttachError {
    /// Whether the interface went away meanwhile, which is nobody's fault.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        match self {
            Self::NoInterface(_) => true,
            Self::Attach { source, .. } | Self::Detach { source, .. } => gone(source.as_ref()),
            Self::Kernel(_) | Self::Pin(_) | Self::Cgroup { .. } => false,
        }
    }
}

fn gone(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && matches!(
                io.raw_os_error(),
                Some(libc::ENODEV | libc::ENXIO | libc::ENOLINK)
            )
        {
            return true;
        }
        next = cause.source();
    }
    false
}

/// What is attached, by (ifindex, program).
#[derive(Debug, Default)]
pub struct Attachments {
    held: BTreeMap<(u32, &'static str), Attached>,
}

impl Attachments {
    /// Everything that is attached.
    pub fn iter(&self) -> impl Iterator<Item = &Attached> {
        self.held.values()
    }

    /// Whether both programs of the role are on the interface.
    #[must_use]
    pub fn has(&self, ifindex: u32, role: Role) -> bool {
        role.programs()
            .iter()
            .all(|(program, _)| self.held.contains_key(&(ifindex, *program)))
    }

    /// Puts the role's programs on an interface, replacing those of an earlier agent in place.
    ///
    /// # Errors
    /// [`AttachError`]; what was attached before the error stays.
    pub fn attach(
        &mut self,
        kernel: &mut Kernel,
        interface: &str,
        ifindex: u32,
        role: Role,
        how: How,
    ) -> Result<(), AttachError> {
        for (program, direction) in role.programs() {
            if self.held.contains_key(&(ifindex, program)) {
                continue;
            }
            match how {
                How::Tcx => attach_tcx(kernel, interface, ifindex, program, direction)?,
                How::Clsact => attach_clsact(kernel, interface, program, direction)?,
                // Not for these programs.
                How::Xdp => continue,
            }
            let hook = if matches!(direction, TcAttachType::Ingress) {
                "ingress"
            } else {
                "egress"
            };
            let attached = Attached {
                interface: interface.to_owned(),
                ifindex,
                program,
                hook,
                how,
            };
            self.held.insert((ifindex, program), attached);
        }
        Ok(())
    }

    /// Puts `untracked` on an interface, in place of an earlier agent's.
    ///
    /// # Errors
    /// [`AttachError`], also if an XDP program of others is there.
    pub fn attach_untracked(
        &mut self,
        kernel: &mut Kernel,
        interface: &str,
        ifindex: u32,
    ) -> Result<(), AttachError> {
        let program = program::UNTRACKED;
        if self.held.contains_key(&(ifindex, program)) {
            return Ok(());
        }
        attach_xdp(kernel, interface, ifindex)?;
        let attached = Attached {
            interface: interface.to_owned(),
            ifindex,
            program,
            hook: "xdp",
            how: How::Xdp,
        };
        self.held.insert((ifindex, program), attached);
        Ok(())
    }

    /// Takes `untracked` off an interface, also an earlier agent's. Without pins it stays, and passes everything.
    pub fn detach_untracked(&mut self, kernel: &Kernel, ifindex: u32) {
        self.held.remove(&(ifindex, program::UNTRACKED));
        if let Some(pins) = kernel.pins() {
            let _not_there = std::fs::remove_file(pins.link(ifindex, program::UNTRACKED));
        }
    }

    /// Forgets an interface that is gone, and its pins.
    pub fn forget(&mut self, kernel: &Kernel, ifindex: u32) {
        self.detach_untracked(kernel, ifindex);
        for role in [Role::Workload, Role::Fabric] {
            self.detach(kernel, ifindex, role);
        }
    }

    /// Takes the pinned programs of a role off an interface. Filters have no pins: another role's take their place.
    pub fn detach(&mut self, kernel: &Kernel, ifindex: u32, role: Role) {
        for (program, _) in role.programs() {
            self.held.remove(&(ifindex, program));
            if let Some(pins) = kernel.pins() {
                let _never_pinned = std::fs::remove_file(pins.link(ifindex, program));
            }
        }
    }
}

fn attach_tcx(
    kernel: &mut Kernel,
    interface: &str,
    ifindex: u32,
    program: &'static str,
    direction: TcAttachType,
) -> Result<(), AttachError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| AttachError::Attach {
        interface: interface.to_owned(),
        program,
        how: How::Tcx,
        source,
    };
    let pin = kernel.pins().map(|pins| pins.link(ifindex, program));
    let earlier = kernel.pins().map(|pins| pins.earlier_links(ifindex, program));
    let earlier = earlier.transpose()?.unwrap_or_default();
    let classifier = kernel.program(program)?;
    for old in pin.iter().filter(|pin| pin.exists()).chain(&earlier) {
        let link = PinnedLink::from_pin(old).map_err(|error| failed(error.into()))?;
        let link: SchedClassifierLink = FdLink::from(link)
            .try_into()
            .map_err(|error: LinkError| failed(error.into()))?;
        match classifier.attach_to_link(link) {
            Ok(id) => {
                let link = classifier.take_link(id).map_err(|error| failed(error.into()))?;
                let link: FdLink = link.try_into().map_err(|error: LinkError| failed(error.into()))?;
                // A pin holds the link; our own descriptor is not needed. One of an earlier layout goes with its directory.
                if let Some(pin) = pin.as_ref().filter(|pin| *pin != old) {
                    link.pin(pin).map_err(|error| failed(error.into()))?;
                }
                return Ok(());
            }
            // The pin outlived its interface, and another one has the index now.
            Err(error) if gone(&error) => {
                std::fs::remove_file(old).map_err(|error| failed(error.into()))?;
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = classifier
        .attach_with_options(interface, direction, options)
        .map_err(|error| {
            if missing(&error) {
                AttachError::NoInterface(interface.to_owned())
            } else {
                failed(error.into())
            }
        })?;
    let link = classifier.take_link(id).map_err(|error| failed(error.into()))?;
    let link: FdLink = link.try_into().map_err(|error: LinkError| failed(error.into()))?;
    match pin {
        Some(pin) => {
            link.pin(&pin).map_err(|error| failed(error.into()))?;
        }
        // Without pins the program is to live as long as the process: for tests.
        None => std::mem::forget(link),
    }
    Ok(())
}

fn attach_xdp(kernel: &mut Kernel, interface: &str, ifindex: u32) -> Result<(), AttachError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| AttachError::Attach {
        interface: interface.to_owned(),
        program: program::UNTRACKED,
        how: How::Xdp,
        source,
    };
    let pin = kernel.pins().map(|pins| pins.link(ifindex, program::UNTRACKED));
    let xdp = kernel.untracked()?;
    if let Some(pin) = pin.as_ref().filter(|pin| pin.exists()) {
        let old = PinnedLink::from_pin(pin).map_err(|error| failed(error.into()))?;
        let link: XdpLink = FdLink::from(old)
            .try_into()
            .map_err(|error: LinkError| failed(error.into()))?;
        match xdp.attach_to_link(link) {
            Ok(id) => {
                let link = xdp.take_link(id).map_err(|error| failed(error.into()))?;
                let _fd: FdLink = link.try_into().map_err(|error: LinkError| failed(error.into()))?;
                return Ok(());
            }
            // The pin outlived its interface.
            Err(error) if gone(&error) => {
                std::fs::remove_file(pin).map_err(|error| failed(error.into()))?;
            }
            Err(error) => return Err(failed(error.into())),
        }
    }
    // The driver's own mode where it has one, else the generic one.
    let id = xdp
        .attach_to_if_index(ifindex, XdpMode::default())
        .map_err(|error| failed(error.into()))?;
    let link = xdp.take_link(id).map_err(|error| failed(error.into()))?;
    let link: FdLink = link.try_into().map_err(|error: LinkError| failed(error.into()))?;
    match pin {
        Some(pin) => {
            link.pin(&pin).map_err(|error| failed(error.into()))?;
        }
        None => std::mem::forget(link),
    }
    Ok(())
}

fn attach_clsact(
    kernel: &mut Kernel,
    interface: &str,
    program: &'static str,
    direction: TcAttachType,
) -> Result<(), AttachError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| AttachError::Attach {
        interface: interface.to_owned(),
        program,
        how: How::Clsact,
        source,
    };
    if let Err(error) = tc::qdisc_add_clsact(interface) {
        match &error {
            TcError::IoError(io) if io.raw_os_error() == Some(libc::ENODEV) => {
                return Err(AttachError::NoInterface(interface.to_owned()));
            }
            // There already; a legacy ingress qdisc in its place makes the egress attach below fail and say so.
            error if has_errno(error, libc::EEXIST) => {}
            _ => return Err(failed(error.into())),
        }
    }
    let classifier = kernel.program(program)?;
    // Replaces our filter in one step if an earlier agent left it, creates it otherwise.
    let old = SchedClassifierLink::attached(interface, direction, FILTER_PRIORITY, FILTER_HANDLE, None)
        .map_err(|_error| AttachError::NoInterface(interface.to_owned()))?;
    let options = NlOptions {
        priority: FILTER_PRIORITY,
        handle: FILTER_HANDLE,
        classid: None,
    };
    let id = match classifier.attach_to_link(old) {
        Ok(id) => Ok(id),
        Err(_not_there) => {
            classifier.attach_with_options(interface, direction, TcAttachOptions::Netlink(options))
        }
    };
    let id = id.map_err(|error| failed(error.into()))?;
    // Dropped, the link would be detached; the filter is to outlive us.
    std::mem::forget(classifier.take_link(id).map_err(|error| failed(error.into()))?);
    Ok(())
}

fn has_errno(error: &(dyn std::error::Error + 'static), errno: i32) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && io.raw_os_error() == Some(errno)
        {
            return true;
        }
        next = cause.source();
    }
    error
        .to_string()
        .contains(&io::Error::from_raw_os_error(errno).to_string())
}

fn missing(error: &ProgramError) -> bool {
    match error {
        ProgramError::TcError(TcError::IoError(io)) => io.raw_os_error() == Some(libc::ENODEV),
        ProgramError::SyscallError(SyscallError { io_error, .. }) => {
            io_error.raw_os_error() == Some(libc::ENODEV)
        }
        _ => false,
    }
}

/// Removes our clsact filters from an interface; returns how many there were.
///
/// # Errors
/// [`AttachError::Detach`].
pub fn detach_clsact(interface: &str) -> Result<usize, AttachError> {
    let mut removed = 0;
    for role in [Role::Workload, Role::Fabric] {
        for (program, direction) in role.programs() {
            match tc::qdisc_detach_program(interface, direction, program) {
                Ok(()) => removed += 1,
                Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(TcError::IoError(error)) if error.raw_os_error() == Some(libc::ENODEV) => {
                    return Ok(removed);
                }
                // No clsact qdisc, so no filter either.
                Err(error) if has_errno(&error, libc::EINVAL) || has_errno(&error, libc::ENOENT) => {}
                Err(source) => {
                    return Err(AttachError::Detach {
                        interface: interface.to_owned(),
                        source: source.into(),
                    });
                }
            }
        }
    }
    Ok(removed)
}
