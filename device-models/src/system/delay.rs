//! Posted writes that stay under way, path by path: the hazard `delay-posted`.

use super::System;
use crate::fabric::{FunctionId, Input, MAX_DELAYED_PATHS, PostedDelay};
use crate::pci::Bdf;

/// Why a path cannot be delayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DelayError {
    /// No function has this BDF.
    #[error("there is no function {0}")]
    NoFunction(Bdf),
    /// The IOMMU's own function: a guest waits for it with interrupts off.
    #[error("{0} is the IOMMU: its writes cannot be waited for")]
    Iommu(Bdf),
    /// As many paths as can be are delayed already.
    #[error("{MAX_DELAYED_PATHS} paths are delayed already; switch one off")]
    TooMany,
}

impl System {
    /// Keeps posted writes of `requester` to `target` under way from now on. No target: to the root
    /// complex, which is RAM and interrupts. What is under way already follows the new delay. A
    /// path can be switched off by the BDFs that its functions had when it was armed, even if
    /// they have lost them since.
    ///
    /// CPUs' accesses to the BARs of the target push what is under way: until the path is off,
    /// [`System::guest_mappings`] has no BAR of it. A caller that maps BARs into a guest unmaps
    /// those of the target before this; see [`System::withhold`].
    ///
    /// # Errors
    /// When there are no such functions, or too many paths.
    pub fn delay_posted(
        &mut self,
        requester: Bdf,
        target: Option<Bdf>,
        delay: PostedDelay,
    ) -> Result<(), DelayError> {
        let delay = delay.bounded();
        let mut path = self.path(requester, target);
        if delay == PostedDelay::Off {
            let armed = self.fabric.armed_path(path.ok(), (requester, target));
            path = armed.map_or(path, Ok);
        }
        let path = path?;
        if self.fabric.untranslated() == Some(path.0) {
            return Err(DelayError::Iommu(requester));
        }
        self.input(&Input::DelayPosted { requester, target, delay });
        let armed = self.fabric.delay_posted(path, (requester, target), delay);
        self.log_errors();
        if armed { Ok(()) } else { Err(DelayError::TooMany) }
    }

    /// Switches off every delay. What is under way arrives, and what was overtaken and not pushed
    /// is found.
    pub fn end_delays(&mut self) {
        let mut paths = self.fabric.delayed_paths();
        // RAM last: a record that no CPU has seen yet comes behind the data before it.
        paths.sort_by_key(|(_, target)| target.is_none());
        for (requester, target) in paths {
            // It is found by the BDFs by which it was armed.
            if let Err(error) = self.delay_posted(requester, target, PostedDelay::Off) {
                log::debug!("{requester} is not switched off: {error}");
            }
        }
    }

    /// Software has seen a fence that stands for the work of `requester`: what is still under way
    /// then is a finding. Nothing in the system can see a fence by itself.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn fence_seen(&mut self, requester: Bdf) -> Result<(), DelayError> {
        let function = self.function_at(requester)?;
        self.input(&Input::FenceSeen { requester });
        self.fabric.fence_seen(function);
        Ok(())
    }

    fn path(
        &self,
        requester: Bdf,
        target: Option<Bdf>,
    ) -> Result<(FunctionId, Option<FunctionId>), DelayError> {
        let from = self.function_at(requester)?;
        Ok((from, target.map(|target| self.function_at(target)).transpose()?))
    }

    fn function_at(&self, bdf: Bdf) -> Result<FunctionId, DelayError> {
        self.by_bdf(bdf).ok_or(DelayError::NoFunction(bdf))
    }
}
