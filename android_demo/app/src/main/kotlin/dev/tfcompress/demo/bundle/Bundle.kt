package dev.tfcompress.demo.bundle

import dev.tfcompress.demo.tensor.ElementType
import dev.tfcompress.demo.tensor.TensorInfo
import dev.tfcompress.demo.tensor.Values
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import java.security.MessageDigest

/** Where the files of a bundle lie: a folder, or the assets of the app. */
interface Store {
    /** @throws IOException where there is no such file. */
    fun read(file: String): ByteArray

    /** A file in direct memory, as runtimes want it. */
    fun map(file: String): ByteBuffer
}

/** A folder. */
class Folder(private val folder: File) : Store {
    override fun read(file: String): ByteArray = File(folder, file).readBytes()

    override fun map(file: String): ByteBuffer = File(folder, file).inputStream().channel.use {
        it.map(FileChannel.MapMode.READ_ONLY, 0, it.size()).order(ByteOrder.nativeOrder())
    }
}

/** Models with labels, samples and the answers that are expected; reads files, so never on a screen's thread. */
class Bundle private constructor(private val store: Store, val manifest: Manifest) {
    private val samples = manifest.inputs.map { sized(it.file) }

    /** A model's bytes in direct memory; they are the file that the manifest tells of. */
    fun model(model: BundleModel): ByteBuffer {
        val content = reading(model.file) { store.map(it) }
        val digest = MessageDigest.getInstance("SHA-256").run {
            update(content.duplicate())
            digest().joinToString("") { "%02x".format(it) }
        }
        if (digest != model.sha256) throw BundleException("${model.file} is damaged: it is not the file that was bundled")
        return content
    }

    /** Sample [row] of input [position], real or plain values as they are stored. */
    fun sample(position: Int, row: Int): FloatArray {
        val input = manifest.inputs[position]
        val bytes = rowOf(samples[position], row, input.elements * input.type.bytes)
        return Values.raw(bytes, input.type).map { it.toFloat() }.toFloatArray()
    }

    /** Raw inputs of a model for sample [row]. */
    fun feed(model: BundleModel, row: Int): Map<String, ByteBuffer> =
        model.inputs.withIndex().associate { (position, info) -> info.name to feed(position, info, row) }

    /** Raw answers that are expected of a model for sample [row]. */
    fun expected(model: BundleModel, row: Int): Map<BundleOutput, ByteBuffer> =
        model.outputs.associateWith { rowOf(answers(it), row, it.info.bytes) }

    private val loaded = HashMap<String, ByteArray>()

    private fun answers(output: BundleOutput): ByteArray =
        synchronized(loaded) { loaded.getOrPut(output.expected) { sized(output.expected) } }

    private fun feed(position: Int, info: TensorInfo, row: Int): ByteBuffer {
        val into = info.buffer()
        if (info.grid != null || info.type == ElementType.FLOAT32) {
            Values.put(sample(position, row), info, into)
        } else {
            into.put(rowOf(samples[position], row, info.bytes))
        }
        into.rewind()
        return into
    }

    private fun rowOf(bytes: ByteArray, row: Int, size: Int): ByteBuffer =
        ByteBuffer.wrap(bytes, row * size, size).slice().order(ByteOrder.LITTLE_ENDIAN)

    private fun sized(file: String): ByteArray {
        val content = reading(file) { store.read(it) }
        val expected = manifest.sizes.getValue(file)
        if (content.size.toLong() != expected) throw BundleException("$file has ${content.size} bytes instead of $expected")
        return content
    }

    private inline fun <T> reading(file: String, read: (String) -> T): T = try {
        read(file)
    } catch (error: IOException) {
        throw BundleException("$file of the bundle is missing or cannot be read", error)
    }

    companion object {
        /** @throws BundleException where it is not a whole bundle; models are checked when they are opened. */
        fun open(store: Store): Bundle {
            val text = try {
                store.read(Manifest.FILE).decodeToString(throwOnInvalidSequence = true)
            } catch (error: CharacterCodingException) {
                throw BundleException("manifest.json is no text", error)
            } catch (error: IOException) {
                throw BundleException("there is no manifest.json, so this is no bundle", error)
            }
            return Bundle(store, Manifest.parse(text))
        }
    }
}
