//! The memory of a request: what each phase needs, and how many blocks of the denoiser stay in memory beside it.

/// A phase of a request. The phases run one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The text encoders read their blocks one at a time.
    Text,
    /// The VAE encodes the source of an edit, or the images to which previews are fitted.
    Encode,
    /// The denoiser computes the steps.
    Denoise,
    /// The VAE decodes an image.
    Decode,
}

/// The memory of a request in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// What each phase needs besides the blocks of the denoiser.
    pub(crate) phases: Vec<(Phase, u64)>,
    /// The size of each block of the denoiser.
    pub(crate) blocks: Vec<u64>,
    /// Whether blocks that are not kept stay in their file while they compute.
    pub(crate) streams: bool,
    /// What may be used in total.
    pub(crate) budget: u64,
}

impl Plan {
    /// Returns the smallest budget that suffices.
    pub(crate) fn needed(&self) -> u64 {
        let needs = self.phases.iter().map(|(phase, need)| match phase {
            Phase::Denoise => need + self.streamed(0),
            _ => *need,
        });
        needs.max().unwrap_or(0)
    }

    /// Returns the memory that the request takes if the budget suffices for all blocks.
    pub(crate) fn wanted(&self) -> u64 {
        let blocks: u64 = self.blocks.iter().sum();
        self.phases.iter().map(|(_, need)| need + blocks).max().unwrap_or(0)
    }

    /// Returns how many of the first blocks fit into memory during a phase.
    pub(crate) fn blocks(&self, phase: Phase) -> usize {
        let need = self.phases.iter().find(|(planned, _)| *planned == phase).map_or(0, |(_, need)| *need);
        let fits = |count: &usize| {
            let kept: u64 = self.blocks.iter().take(*count).sum();
            let streamed = if phase == Phase::Denoise { self.streamed(*count) } else { 0 };
            need + kept + streamed <= self.budget
        };
        (0..=self.blocks.len()).rev().find(fits).unwrap_or(0)
    }

    /// Returns the memory of the blocks that are read during a forward pass if the first `kept` are in memory: the present
    /// one and the next one, or nothing if they stay in their file.
    fn streamed(&self, kept: usize) -> u64 {
        if self.streams {
            return 0;
        }
        let rest = self.blocks.get(kept..).unwrap_or(&[]);
        let pairs = rest.windows(2).map(|pair| pair.iter().sum());
        pairs.chain(rest.iter().copied()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(budget: u64) -> Plan {
        let phases = vec![(Phase::Text, 30), (Phase::Denoise, 20), (Phase::Decode, 50)];
        Plan { phases, blocks: vec![10; 6], streams: false, budget }
    }

    #[test]
    fn as_many_blocks_are_kept_as_fit_beside_each_phase() {
        for (budget, text, denoise, decode) in
            [(110, 6, 6, 6), (109, 6, 6, 5), (79, 4, 3, 2), (80, 5, 6, 3), (50, 2, 1, 0), (40, 1, 0, 0)]
        {
            let plan = plan(budget);
            let kept = [Phase::Text, Phase::Denoise, Phase::Decode].map(|phase| plan.blocks(phase));
            assert_eq!(kept, [text, denoise, decode], "{budget}");
        }
        assert_eq!((plan(0).needed(), plan(0).wanted()), (50, 110));
    }

    #[test]
    fn blocks_that_stay_in_their_file_need_no_memory() {
        for (budget, denoise) in [(20, 0), (29, 0), (30, 1), (69, 4), (79, 5), (80, 6)] {
            assert_eq!(Plan { streams: true, ..plan(budget) }.blocks(Phase::Denoise), denoise, "{budget}");
        }
        let phases = vec![(Phase::Denoise, 20)];
        let needed = [true, false].map(|streams| Plan { phases: phases.clone(), streams, ..plan(0) }.needed());
        assert_eq!(needed, [20, 40]);
    }
}
