//! The few functions of a module that are called past the wrapper, which asks more of a module than is needed: it reads
//! the clock of a token, asks for the length of a signature before it signs, and always wants the system's locks.
#![allow(unsafe_code)]

use cryptoki::{
    context::Function,
    error::{Error, Rv},
    session::Session,
    slot::Slot,
};
use cryptoki_sys::{CK_C_INITIALIZE_ARGS, CK_FUNCTION_LIST, CK_TOKEN_INFO, CK_ULONG, CKF_OS_LOCKING_OK, Pkcs11};
use std::{
    ffi::{CStr, c_void},
    mem::ManuallyDrop,
    path::Path,
    ptr,
};

/// A module's functions as the module exports them.
pub(super) struct RawModule {
    functions: CK_FUNCTION_LIST,
    /// Never unloaded, as long as its functions can be called.
    _library: ManuallyDrop<Pkcs11>,
}

/// What C_Initialize is given.
#[derive(Clone, Copy)]
pub(super) enum Arguments<'a> {
    /// The module may lock with the system's means.
    Locking(Option<&'a CStr>),
    /// This process has one thread, so the module needs no locks.
    NoLocking(Option<&'a CStr>),
    /// None at all: it has one thread, too.
    Null,
}

/// The standard's structure, in which NSS has one more field after the text: it must be null there.
#[repr(C)]
struct InitializeArguments {
    standard: CK_C_INITIALIZE_ARGS,
    after: *mut c_void,
}

impl RawModule {
    /// Loads the module at `path`, which is the same as is loaded already.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        // SAFETY: the operator names a PKCS#11 module. Loading one runs its code, which is what it is for.
        let library = ManuallyDrop::new(unsafe { Pkcs11::new(path) }.map_err(Error::LibraryLoading)?);
        if library.C_GetFunctionList.is_err() {
            return Err(Error::MissingSymbol("C_GetFunctionList"));
        }
        let mut list = ptr::null_mut();
        // SAFETY: the module exports this function, and `list` is a place for the list's address.
        let answer = unsafe { library.C_GetFunctionList(&raw mut list) };
        Rv::from(answer).into_result(Function::GetFunctionList)?;
        // SAFETY: null, or the list of a module that answered CKR_OK, which lives as long as the module.
        let functions = unsafe { list.as_ref() }.copied().ok_or(Error::NullFunctionPointer)?;
        Ok(Self { functions, _library: library })
    }

    pub(super) fn initialize(&self, arguments: Arguments<'_>) -> Result<(), Error> {
        let function = self.functions.C_Initialize.ok_or(Error::NullFunctionPointer)?;
        let (flags, text) = match arguments {
            Arguments::Locking(text) => (CKF_OS_LOCKING_OK, text),
            Arguments::NoLocking(text) => (0, text),
            Arguments::Null => {
                // SAFETY: null is always allowed.
                let answer = unsafe { function(ptr::null_mut()) };
                return Rv::from(answer).into_result(Function::Initialize);
            }
        };
        let text = text.map_or(ptr::null_mut(), |text| text.as_ptr().cast_mut().cast());
        let standard = CK_C_INITIALIZE_ARGS { flags, pReserved: text, ..CK_C_INITIALIZE_ARGS::default() };
        let mut arguments = InitializeArguments { standard, after: ptr::null_mut() };
        // SAFETY: the structure begins with the standard's one. It and the text live longer than the call, after which no
        // module may use them. A module only reads the text.
        Rv::from(unsafe { function((&raw mut arguments).cast()) }).into_result(Function::Initialize)
    }

    /// What a token reports about itself, unread.
    pub(super) fn token_info(&self, slot: Slot) -> Result<CK_TOKEN_INFO, Error> {
        let function = self.functions.C_GetTokenInfo.ok_or(Error::NullFunctionPointer)?;
        let mut info = CK_TOKEN_INFO::default();
        // SAFETY: `info` is a whole structure of the standard, which the module fills.
        Rv::from(unsafe { function(slot.id(), &raw mut info) }).into_result(Function::GetTokenInfo)?;
        Ok(info)
    }

    /// Ends the operation of `session` that is to sign: the signature over `data` goes to `room`, and its length is
    /// returned. One call, because a device may do all the work already when it is asked for the length.
    pub(super) fn sign(&self, session: &Session, data: &[u8], room: &mut [u8]) -> Result<usize, Error> {
        let function = self.functions.C_Sign.ok_or(Error::NullFunctionPointer)?;
        let mut length = CK_ULONG::try_from(room.len())?;
        let data_length = CK_ULONG::try_from(data.len())?;
        // SAFETY: the session is open. The module reads `data_length` bytes at `data`, which it does not change, and writes
        // at most `length` bytes to `room`.
        let answer = unsafe {
            function(session.handle(), data.as_ptr().cast_mut(), data_length, room.as_mut_ptr(), &raw mut length)
        };
        Rv::from(answer).into_result(Function::Sign)?;
        Ok(usize::try_from(length)?)
    }
}
