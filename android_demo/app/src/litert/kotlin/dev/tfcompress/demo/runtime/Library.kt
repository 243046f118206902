package dev.tfcompress.demo.runtime

/** How results call the runtime library of this build. */
const val LIBRARY = "LiteRT"
