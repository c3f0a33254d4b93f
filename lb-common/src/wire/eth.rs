//! Ethernet II (IEEE 802.3, clause 3).

/// A hardware address.
pub type Mac = [u8; 6];

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Ethernet {
    pub dst: Mac,
    pub src: Mac,
    ethertype: [u8; 2],
}

impl Ethernet {
    pub const SIZE: usize = size_of::<Self>();
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad.
    pub const QINQ: u16 = 0x88a8;

    #[inline(always)]
    pub fn set_ethertype(&mut self, ethertype: u16) {
        self.ethertype = ethertype.to_be_bytes();
    }

    #[inline(always)]
    pub fn ethertype(&self) -> u16 {
        u16::from_be_bytes(self.ethertype)
    }

    #[inline(always)]
    pub fn address(&mut self, dst: &Mac, src: &Mac) {
        copy(&mut self.dst, dst);
        copy(&mut self.src, src);
    }
}

/// Copies an address by words; the compiler would make a call of an assignment.
#[inline(always)]
pub fn copy(to: &mut Mac, from: &Mac) {
    to[..4].copy_from_slice(&from[..4]);
    to[4..].copy_from_slice(&from[4..]);
}

/// Whether two addresses are the same, by words.
#[inline(always)]
pub fn same(a: &Mac, b: &Mac) -> bool {
    let words = |mac: &Mac| {
        (u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]), u16::from_ne_bytes([mac[4], mac[5]]))
    };
    words(a) == words(b)
}

const _: () = assert!(Ethernet::SIZE == 14 && align_of::<Ethernet>() == 1);
