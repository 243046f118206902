package dev.tfcompress.demo.bundle

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipException
import java.util.zip.ZipInputStream

/** A bundle that came as a zip file, unpacked into a folder of the app. */
object Import {
    private const val MOST_FILES = 10_000

    /**
     * Unpacks beside [target], opens the bundle, and only then takes the place of the one that was there.
     *
     * @param largest bytes of all files together; an archive can promise any size.
     * @throws BundleException where it is no zip file of a whole bundle; what was there stays.
     */
    fun unzip(source: InputStream, target: File, largest: Long = 2L shl 30): Bundle {
        val fresh = File(target.parentFile, "${target.name}.new")
        fresh.deleteRecursively()
        try {
            unpack(source, fresh, largest)
            Bundle.open(Folder(root(fresh)))
            target.deleteRecursively()
            if (!root(fresh).renameTo(target)) throw BundleException("the bundle cannot be stored on this phone")
        } catch (error: ZipException) {
            throw BundleException("the file is a damaged zip archive", error)
        } catch (error: IOException) {
            throw BundleException("the file cannot be unpacked: ${error.message}", error)
        } finally {
            fresh.deleteRecursively()
        }
        return Bundle.open(Folder(target))
    }

    private fun unpack(source: InputStream, folder: File, largest: Long) {
        var left = largest
        var files = 0
        ZipInputStream(source.buffered()).use { archive ->
            while (true) {
                val entry = archive.nextEntry ?: break
                if (entry.isDirectory) continue
                if (++files > MOST_FILES) throw BundleException("the archive holds too many files")
                val file = File(folder, Manifest.plain(entry.name))
                file.parentFile?.mkdirs()
                file.outputStream().use { left -= copy(archive, it, left) }
            }
        }
        if (files == 0) throw BundleException("the file is no zip archive with a bundle")
    }

    private fun copy(from: InputStream, to: java.io.OutputStream, most: Long): Long {
        val part = ByteArray(1 shl 16)
        var copied = 0L
        while (true) {
            val size = from.read(part)
            if (size < 0) return copied
            copied += size
            if (copied > most) throw BundleException("the archive is larger than this app takes")
            to.write(part, 0, size)
        }
    }

    /** Archives made by hand often hold one folder with the bundle in it. */
    private fun root(folder: File): File {
        val only = folder.listFiles()?.singleOrNull()?.takeIf { it.isDirectory }
        return if (only != null && !File(folder, Manifest.FILE).exists()) only else folder
    }
}
