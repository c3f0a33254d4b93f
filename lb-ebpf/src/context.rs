//! The frame: the only raw packet pointers of the program.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail};
use aya_ebpf::programs::XdpContext;
use lb_common::wire::Packet;

/// A frame's bytes, bounds-checked at each view as the verifier demands.
pub struct Frame {
    ctx: XdpContext,
}

impl Frame {
    #[inline(always)]
    pub fn new(ctx: &XdpContext) -> Self {
        Self { ctx: XdpContext::new(ctx.ctx) }
    }

    /// The frame again, for a function of its own, which gets the context alone.
    #[inline(always)]
    pub fn of(context: *mut xdp_md) -> Self {
        Self { ctx: XdpContext::new(context) }
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

    /// The context, for helpers that want it.
    #[inline(always)]
    pub fn context(&self) -> *mut xdp_md {
        self.ctx.ctx
    }

    /// As [`Frame::view`], at an offset that was read from memory.
    #[inline(always)]
    pub fn view_at<T>(&self, offset: usize) -> Option<&T> {
        // SAFETY: as in `view`.
        self.bounded::<T>(opaque(self.ctx.data() + offset)).map(|place| unsafe { &*place })
    }

    /// As [`Frame::edit`], at an offset that was read from memory.
    #[inline(always)]
    pub fn edit_at<T>(&mut self, offset: usize) -> Option<&mut T> {
        // SAFETY: as in `edit`.
        self.bounded::<T>(opaque(self.ctx.data() + offset)).map(|place| unsafe { &mut *place })
    }

    #[inline(always)]
    fn place<T>(&self, offset: usize) -> Option<*mut T> {
        self.bounded(self.ctx.data() + offset)
    }

    #[inline(always)]
    fn bounded<T>(&self, start: usize) -> Option<*mut T> {
        const { assert!(align_of::<T>() == 1, "a header is made of bytes") };
        if start + size_of::<T>() > self.ctx.data_end() { None } else { Some(start as *mut T) }
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn view_at<T>(&self, offset: usize) -> Option<&T> {
        self.view_at(offset & 0xff)
    }
    #[inline(always)]
    fn edit<T>(&mut self, offset: usize) -> Option<&mut T> {
        self.edit(offset)
    }
    #[inline(always)]
    fn edit_at<T>(&mut self, offset: usize) -> Option<&mut T> {
        self.edit_at(offset)
    }
}

/// The same number, of which the compiler knows no more than the verifier. For an address: from it alone can the end of what lies
/// there be computed, and the verifier sees that start and end belong together.
#[inline(always)]
pub fn opaque(mut address: usize) -> usize {
    // SAFETY: moves a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) address, options(pure, nomem, nostack)) };
    address
}
