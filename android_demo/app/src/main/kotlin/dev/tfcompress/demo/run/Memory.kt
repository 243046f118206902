package dev.tfcompress.demo.run

import java.io.File
import java.io.IOException

/** Memory that the process holds, as Linux tells it. */
object Memory {
    /** Bytes; null where it cannot be read. */
    fun resident(): Long? = try {
        File("/proc/self/status").useLines { lines ->
            lines.firstOrNull { it.startsWith("VmRSS:") }?.filter { it.isDigit() }?.toLongOrNull()?.times(1024)
        }
    } catch (_: IOException) {
        null
    }

    /** Bytes above [before], 0 where there are less; null where one of the two is not known. */
    fun above(before: Long?): Long? = resident()?.let { now -> before?.let { maxOf(0L, now - it) } }
}
