package dev.tfcompress.demo.runtime

import android.os.Build
import dev.tfcompress.demo.tensor.ElementType
import dev.tfcompress.demo.tensor.Grid
import dev.tfcompress.demo.tensor.TensorInfo
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Delegate
import org.tensorflow.lite.Interpreter
import org.tensorflow.lite.Tensor
import org.tensorflow.lite.TensorFlowLite
import org.tensorflow.lite.gpu.CompatibilityList
import org.tensorflow.lite.gpu.GpuDelegate
import org.tensorflow.lite.nnapi.NnApiDelegate
import java.io.Closeable
import java.nio.ByteBuffer

/** The TFLite or LiteRT library of the app: both have the Interpreter of the package org.tensorflow.lite. */
class PhoneEngine : Engine {
    override val runtime: String get() = LIBRARY

    override val version: String get() = TensorFlowLite.runtimeVersion()

    override fun missing(accelerator: Accelerator): String? = when (accelerator) {
        Accelerator.XNNPACK, Accelerator.CPU -> null
        Accelerator.GPU -> gpu
        Accelerator.NNAPI ->
            if (Build.VERSION.SDK_INT < Build.VERSION_CODES.P) "NNAPI needs Android 9, this is Android ${Build.VERSION.RELEASE}." else null
    }

    private val gpu: String? by lazy {
        try {
            val supported = CompatibilityList().use { it.isDelegateSupportedOnThisDevice }
            if (supported) null else "The GPU of this phone is not among those that the runtime supports."
        } catch (error: LinkageError) {
            "The GPU library does not load on this phone: ${error.message}"
        }
    }

    override fun open(model: ByteBuffer, settings: Settings): Session {
        val delegates = ArrayList<Delegate>()
        return try {
            val options = Interpreter.Options().setNumThreads(settings.threads)
            options.setUseXNNPACK(settings.accelerator == Accelerator.XNNPACK)
            when (settings.accelerator) {
                Accelerator.GPU -> delegates += CompatibilityList().use { GpuDelegate(it.bestOptionsForThisDevice) }
                Accelerator.NNAPI -> delegates += NnApiDelegate(NnApiDelegate.Options().setUseNnapiCpu(false))
                else -> Unit
            }
            delegates.forEach(options::addDelegate)
            PhoneSession(Interpreter(model, options), settings, delegates)
        } catch (error: RuntimeException) {
            delegates.forEach { (it as Closeable).close() }
            throw EngineException("$runtime does not take this model with ${settings.accelerator}: ${said(error)}", error)
        } catch (error: EngineException) {
            delegates.forEach { (it as Closeable).close() }
            throw error
        } catch (error: LinkageError) {
            throw EngineException("The runtime library does not load on this phone: ${error.message}", error)
        }
    }
}

private class PhoneSession(
    private val interpreter: Interpreter, private val settings: Settings, private val delegates: List<Delegate>,
) : Session {
    private val signature = settings.signature
    override val inputs: List<TensorInfo>
    override val outputs: List<TensorInfo>
    private val results: Map<String, ByteBuffer>

    init {
        try {
            if (signature.isNotEmpty()) {
                inputs = interpreter.getSignatureInputs(signature).map { info(it, interpreter.getInputTensorFromSignature(it, signature)) }
                outputs = interpreter.getSignatureOutputs(signature).map { info(it, interpreter.getOutputTensorFromSignature(it, signature)) }
            } else {
                inputs = List(interpreter.inputTensorCount) { interpreter.getInputTensor(it).run { info(name(), this) } }
                outputs = List(interpreter.outputTensorCount) { interpreter.getOutputTensor(it).run { info(name(), this) } }
            }
            results = outputs.associate { it.name to it.buffer() }
        } catch (error: Exception) {
            interpreter.close()
            throw error
        }
    }

    override val delegate: String get() = when (settings.accelerator) {
        Accelerator.XNNPACK -> "XNNPACK"
        Accelerator.CPU -> "CPU kernels of the runtime"
        Accelerator.GPU -> "GPU, the CPU where it cannot"
        Accelerator.NNAPI -> "NNAPI, the CPU where it cannot"
    }

    override fun run(inputs: Map<String, ByteBuffer>): Map<String, ByteBuffer> {
        inputs.values.forEach { it.rewind() }
        results.values.forEach { it.clear() }
        try {
            if (signature.isNotEmpty()) {
                interpreter.runSignature(inputs, HashMap<String, Any>(results), signature)
            } else {
                val given = Array<Any>(this.inputs.size) { inputs.getValue(this.inputs[it].name) }
                val into = outputs.withIndex().associate { (position, info) -> position to results.getValue(info.name) as Any }
                interpreter.runForMultipleInputsOutputs(given, HashMap(into))
            }
        } catch (error: RuntimeException) {
            throw EngineException("The runtime failed: ${said(error)}", error)
        }
        results.values.forEach { it.rewind() }
        return results
    }

    override fun close() {
        interpreter.close()
        delegates.forEach { (it as Closeable).close() }
    }

    private fun info(name: String, tensor: Tensor): TensorInfo {
        val type = when (tensor.dataType()) {
            DataType.FLOAT32 -> ElementType.FLOAT32
            DataType.INT8 -> ElementType.INT8
            DataType.UINT8 -> ElementType.UINT8
            DataType.INT16 -> ElementType.INT16
            DataType.INT32 -> ElementType.INT32
            DataType.INT64 -> ElementType.INT64
            DataType.BOOL -> ElementType.BOOL
            else -> throw EngineException("'$name' is of type ${tensor.dataType()}. This app knows ${ElementType.known}.")
        }
        val scale = tensor.quantizationParams().scale
        val grid = if (scale > 0) Grid(scale, tensor.quantizationParams().zeroPoint) else null
        return TensorInfo(name, type, tensor.shape().toList(), grid)
    }
}

/** What a person can use of an exception: the last line of the runtime's own words. */
private fun said(error: RuntimeException): String =
    error.message.orEmpty().lines().lastOrNull { it.isNotBlank() }?.trim() ?: error.javaClass.simpleName
