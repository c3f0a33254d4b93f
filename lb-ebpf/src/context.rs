//! The frame: the only raw packet pointers of the program.

use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;

/// A frame's bytes, bounds-checked at each view as the verifier demands.
pub struct Frame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Bytes in the frame.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    /// The interface that it came in by.
    #[inline(always)]
    pub fn ingress(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    /// The `T` at `offset`; `None` if the frame ends before it does.
    #[inline(always)]
    pub fn view<T>(&self, offset: usize) -> Option<&T> {
        // SAFETY: `place` gives a pointer to that many bytes within the frame; `T` is made of bytes (checked there), so
        // it needs no alignment and any content is valid. The frame outlives the borrow of `self`.
        self.place::<T>(offset).map(|place| unsafe { &*place })
    }

    /// The `T` at `offset`, to be changed; `None` if the frame ends before it does.
    #[inline(always)]
    pub fn edit<T>(&mut self, offset: usize) -> Option<&mut T> {
        // SAFETY: as in `view`; the exclusive borrow of `self` makes it the only view.
        self.place::<T>(offset).map(|place| unsafe { &mut *place })
    }

    /// Cuts the frame, or makes room in front of it: `front` bytes more, then `length` in all. Views end with this call.
    ///
    /// `false`: the driver has no such room; the frame may have been changed in part and must not be sent.
    #[inline(always)]
    pub fn resize(&mut self, front: usize, length: usize) -> bool {
        // SAFETY: both helpers take the context and a number, and invalidate packet pointers, which no view outlives: it
        // borrows `self`.
        unsafe {
            if front > 0 && bpf_xdp_adjust_head(self.ctx.ctx, -(front as i32)) != 0 {
                return false;
            }
            let excess = length as i32 - self.len() as i32;
            excess == 0 || bpf_xdp_adjust_tail(self.ctx.ctx, excess) == 0
        }
    }

    #[inline(always)]
    fn place<T>(&self, offset: usize) -> Option<*mut T> {
        const { assert!(align_of::<T>() == 1, "a header is made of bytes") };
        let start = self.ctx.data() + offset;
        if start + size_of::<T>() > self.ctx.data_end() { None } else { Some(start as *mut T) }
    }
}
